"""Where a request goes: by its path to one of the configured providers, ``/healthz`` to us, anything else nowhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mitmproxy import http

from ephemeral.providers import OPENAI, Provider
from ephemeral_proxy.answers import answer, problem
from ephemeral_proxy.guard import refusal

_OURS = "x-ephemeral-"


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

    @property
    def provider(self) -> Provider | None:
        """The provider that all requests go to, where it is one."""
        return self.only

    def decide(self, target: str, hosts: Sequence[str], origins: Sequence[str]) -> Way | http.Response:
        """The way of a request, or our own answer to it. ``hosts`` and ``origins``: the values of these headers."""
        refused = refusal(target, hosts, origins)
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

    def decide(self, target: str, hosts: Sequence[str], origins: Sequence[str]) -> Way | http.Response:
        if not target.startswith("/") or len(hosts) != 1:
            return problem(400, "Bad Request", "This connection leads to one provider: ask for a path, with one Host.")
        return Way(self.provider, target, hosts[0])


Routes = ByPath | Fixed


def _way(provider: Provider, target: str) -> Way:
    return Way(provider, provider.base + target, provider.authority)
