"""What the bench's own servers have in common: they say that they are ready, and end with whoever started them."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any


async def serve_until_eof(ready: dict[str, Any]) -> None:
    """Say ``ready`` as a line of JSON; return when stdin is closed, by its owner or by its owner's death."""
    closed = asyncio.Event()

    class Watch(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            closed.set()

    transport, _ = await asyncio.get_running_loop().connect_read_pipe(Watch, sys.stdin)
    sys.stdout.write(json.dumps(ready) + "\n")
    sys.stdout.flush()
    await closed.wait()
    transport.close()
