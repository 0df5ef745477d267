"""`GET /v1/stream`: the ledger's live bus as server-sent events."""

from __future__ import annotations

import asyncio

from aiohttp import web

from ephemeral.wire import Live
from ephemeral_sandboxd.api.keys import DAEMON, RECORDER

HEARTBEAT_SECONDS = 5.0
"""How often the host's state is sent when nothing else is; it keeps proxies and readers from giving the line up."""


async def stream(request: web.Request) -> web.StreamResponse:
    """Begins with the host's state. `event:` is the message's kind, `data:` the message (wire.Live) on one line."""
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )
    with request.app[RECORDER].bus.subscribe() as live:
        await response.prepare(request)
        try:
            await response.write(b"retry: 1000\n\n" + _event(_host(request)))
            while True:
                try:
                    message = await asyncio.wait_for(anext(live), HEARTBEAT_SECONDS)
                except TimeoutError:
                    message = _host(request)
                await response.write(_event(message))
        except StopAsyncIteration:
            pass  # sandboxd is closing
        except ConnectionResetError:
            pass  # the reader has gone
    return response


def _host(request: web.Request) -> Live:
    return Live(kind="host", host=request.app[DAEMON].host())


def _event(message: Live) -> bytes:
    data = message.model_dump_json(include={"kind", message.kind})
    return f"event: {message.kind}\ndata: {data}\n\n".encode()
