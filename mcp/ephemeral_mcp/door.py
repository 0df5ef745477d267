"""The outermost ASGI layer: stamps the arrival, and lets nobody in whom the loopback address alone would let in.

A page in the user's browser can reach 127.0.0.1 too: by its own origin, or by a DNS name that it rebinds. So the Host must
be a loopback one (else 421) and the Origin, if there is one, too (else 403), on every route.
"""

from __future__ import annotations

import time

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ephemeral.identity import SESSION_HEADER
from ephemeral_mcp.arrival import ARRIVAL, Arrival

LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})

_SESSION = SESSION_HEADER.encode()


class Door:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        at = time.perf_counter()
        headers = dict(scope["headers"])
        if _name(headers.get(b"host", b"").decode("latin-1")) not in LOOPBACK:
            await PlainTextResponse("Wrong Host: use http://127.0.0.1:PORT/mcp\n", 421)(scope, receive, send)
            return
        origin = headers.get(b"origin")
        if origin is not None and _name(origin.decode("latin-1").partition("://")[2]) not in LOOPBACK:
            await PlainTextResponse("Wrong Origin: only pages of this machine may call\n", 403)(scope, receive, send)
            return
        session = headers.get(_SESSION)
        ARRIVAL.set(Arrival(at, session.decode("latin-1") if session else None))
        await self._app(scope, receive, send)


def _name(authority: str) -> str:
    """`localhost:8788` is `localhost`, `[::1]:8788` is `[::1]`."""
    authority = authority.lower()
    if authority.startswith("["):
        return authority.partition("]")[0] + "]"
    return authority.partition(":")[0]
