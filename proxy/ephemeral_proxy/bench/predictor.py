"""``python -m ephemeral_proxy.bench.predictor SOCKET``: takes events and counts them, so that the tee works while it is measured.

Says ``{}`` once it listens. Ends with its stdin; its last words are ``{"events": N}``.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import cast

from ephemeral_proxy.bench import traffic
from ephemeral_proxy.bench.helper import serve_until_eof


class Predictor(asyncio.Protocol):
    """One connection; ``events`` are all that came over any."""

    events = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's derives from nothing
        self._received = bytearray()

    def data_received(self, data: bytes) -> None:
        self._received += data
        length = traffic.request_length(self._received)
        if length is None or len(self._received) < length:
            return
        head = self._received.find(b"\r\n\r\n") + 4
        Predictor.events += self._received.count(b"\n", head, length)
        del self._received[:length]
        self._transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")


async def main() -> None:
    await asyncio.get_running_loop().create_unix_server(Predictor, sys.argv[1])
    await serve_until_eof({})
    sys.stdout.write(json.dumps({"events": Predictor.events}) + "\n")


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
