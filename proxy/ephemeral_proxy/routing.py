"""Where a request goes: ``/v1`` and ``/openai/v1`` to the provider, ``/healthz`` to us, anything else nowhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mitmproxy import http

from ephemeral_proxy.errors import answer, problem
from ephemeral_proxy.upstream import Upstream

OURS = "x-ephemeral-"
"""Headers that begin so are for us; the provider never sees them."""


class Routing:
    """Aims each request at the provider, or answers it."""

    def __init__(self, upstream: Upstream, health: Callable[[], dict[str, Any]]) -> None:
        self._upstream = upstream
        self._health = health

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        if flow.response:
            return
        request = flow.request
        path = upstream_path(request.path)
        if path is not None:
            # The parts of mitmproxy's request that say where to connect; assigning `host` would rewrite headers, too.
            request.data.scheme = self._upstream.scheme.encode()
            request.data.host = self._upstream.host
            request.data.port = self._upstream.port
            request.path = self._upstream.base + path
            request.headers["host"] = self._upstream.authority
        elif request.path.partition("?")[0] == "/healthz":
            flow.response = answer(200, self._health())
        else:
            flow.response = problem(
                404,
                "Not Found",
                "The proxy serves /v1/… and /openai/v1/…: let your client's base URL end in /v1, for example http://127.0.0.1:8787/v1.",
            )


class OwnHeaders:
    """Takes our own headers off a request. Must come after the tee, which reads them."""

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        for name in [name for name in flow.request.headers if name.lower().startswith(OURS)]:
            del flow.request.headers[name]


def upstream_path(path: str) -> str | None:
    """The path to ask the provider for, its query included; None for what is not the provider's."""
    path = path.removeprefix("/openai")
    return path if path.startswith("/v1/") or path.partition("?")[0] == "/v1" else None
