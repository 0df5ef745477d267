"""Where a request goes: by its path to one of the configured providers, ``/healthz`` to us, anything else nowhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mitmproxy import http

from ephemeral.providers import OPENAI, Provider
from ephemeral_proxy.answers import answer, problem
from ephemeral_proxy.guard import refusal

_OURS = "x-ephemeral-"
_UP = re.compile(r"(?:^|[/\\])(?:\.|%2e){2}(?:$|[/\\]|%2f|%5c)", re.IGNORECASE)


def ours(name: str) -> bool:
    """Whether a header (lower case) is for us: the provider never sees it."""
    return name.startswith(_OURS)


class Way(NamedTuple):
    """Where a request goes, and what it asks for there."""

    provider: Provider
    target: str
    host: str
    """The Host header it gets."""


@dataclass(frozen=True)
class ByPath:
    """The routes of a port: all providers by the first part of the path, or ``only`` one, whose paths begin at ``/``."""

    providers: Mapping[str, Provider]
    health: Callable[[], dict[str, Any]]
    only: Provider | None = None

    def decide(self, target: str, header: Callable[[str], Sequence[str]]) -> Way | http.Response:
        """The way of a request, or our own answer to it. ``header`` gives the values of a header by its lower-case name."""
        refused = refusal(target, header)
        if refused:
            return refused
        if self.only:
            return _way(self.only, target)
        path = target.partition("?")[0]
        if path.startswith("/v1/") or path == "/v1":
            return _way(self.providers[OPENAI], target)
        name, slash, _ = path[1:].partition("/")
        if slash and name in self.providers:
            return _way(self.providers[name], target[1 + len(name) :])
        if path == "/healthz":
            return answer(200, self.health())
        return problem(
            404,
            "Not Found",
            f"The proxy serves /v1/… and {', '.join(f'/{name}/…' for name in self.providers)}: "
            "let your client's base URL begin so, for example http://127.0.0.1:8787/v1.",
        )


@dataclass(frozen=True)
class Fixed:
    """The route of a connection whose provider is known: everything goes there as it is."""

    provider: Provider

    def decide(self, target: str, header: Callable[[str], Sequence[str]]) -> Way | http.Response:
        hosts = header("host")
        if not target.startswith("/") or len(hosts) != 1:
            return problem(400, "Bad Request", "This connection leads to one provider: ask for a path, with one Host.")
        return Way(self.provider, target, hosts[0])


Routes = ByPath | Fixed


def _way(provider: Provider, target: str) -> Way | http.Response:
    if provider.base and _UP.search(target.partition("?")[0]):
        return problem(400, "Bad Request", f"A path to {provider.name} may not lead out of {provider.base}: leave out the dots.")
    return Way(provider, provider.base + target, provider.authority)
