"""``python -m ephemeral_proxy.bench.provider``: the provider of the load, as fast as Python can be. Says ``{"port": N}``, ends with its stdin."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import cast

from ephemeral_proxy.bench import traffic
from ephemeral_proxy.bench.helper import serve_until_eof

FIRST_SECONDS = 0.005
"""From a request to its first delta, where deltas are timed."""
STEP_SECONDS = 0.01
"""Between two deltas, where they are paced."""

_MODEL = re.compile(rb'"model":\s*"([a-z-]+)"')


class Provider(asyncio.Protocol):
    """One connection. Requests come one after the other."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._later: asyncio.TimerHandle | None = None
        self._ways: dict[bytes, Callable[[bytes, int], None]] = {
            traffic.FIRST.encode(): self._first, traffic.PACED.encode(): self._paced,
        }

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's derives from nothing
        self._loop = asyncio.get_running_loop()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._later:
            self._later.cancel()

    def data_received(self, data: bytes) -> None:
        arrived = time.monotonic_ns()
        self._received += data
        length = traffic.request_length(self._received)
        if length is None or len(self._received) < length:
            return
        request = bytes(self._received[:length])
        del self._received[:length]
        head = traffic.answer_head(traffic.digest(request))
        model = _MODEL.search(request)
        if way := self._ways.get(model[1] if model else b""):
            way(head, arrived)
        else:
            self._transport.write(head + traffic.BODY)

    def _first(self, head: bytes, arrived: int) -> None:
        self._later = self._loop.call_later(FIRST_SECONDS, self._send_first, head, arrived)

    def _send_first(self, head: bytes, arrived: int) -> None:
        self._transport.write(traffic.stamped(head + traffic.ROLE + traffic.CONTENT[0], arrived, time.monotonic_ns()))
        self._later = self._loop.call_later(STEP_SECONDS, self._transport.write, b"".join(traffic.CONTENT[1:]) + traffic.TOOL_CALL)

    def _paced(self, head: bytes, arrived: int) -> None:
        self._later = self._loop.call_later(FIRST_SECONDS, self._send_paced, head + traffic.ROLE, arrived, 0)

    def _send_paced(self, before: bytes, arrived: int, number: int) -> None:
        self._transport.write(before + traffic.stamped(traffic.CONTENT[number], arrived, time.monotonic_ns()))
        number += 1
        if number < len(traffic.CONTENT):
            self._later = self._loop.call_later(STEP_SECONDS, self._send_paced, b"", arrived, number)
        else:
            self._later = self._loop.call_later(STEP_SECONDS, self._transport.write, traffic.TOOL_CALL)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Provider, "127.0.0.1", 0, backlog=1024)
    await serve_until_eof({"port": server.sockets[0].getsockname()[1]})


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
