"""From a name that may be reached to a connection: every address it has is checked, and one of those very addresses is connected to.

Nothing resolves the name a second time, so a name server that gives a public address first and a private one later gains nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiohappyeyeballs import start_connection

from ephemeral_sandboxd.egress.rules import Network, check_address

HAPPY_EYEBALLS_SECONDS = 0.25
CLOSE_SECONDS = 1.0
_resolvers = ThreadPoolExecutor(max_workers=8, thread_name_prefix="egress-names")
"""Threads of their own: a domain whose name servers never answer keeps these busy, and nothing else of the daemon's."""

Found = Sequence[tuple[Any, Any, int, str, Any]]
Resolve = Callable[[str, int], Awaitable[Found]]
"""(host, port) -> what getaddrinfo says. Raises OSError."""


async def system(host: str, port: int) -> Found:
    """By this host's own resolver. Raises OSError (socket.gaierror)."""
    return await asyncio.get_running_loop().run_in_executor(_resolvers, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))


async def reach(host: str, port: int, resolve: Resolve, permit: Collection[Network]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Raises rules.Refusal when ``host`` has an address that is not public, and OSError when it cannot be reached."""
    found = await resolve(host, port)
    if not found:
        raise OSError("it has no address")
    for _, _, _, _, address in found:
        check_address(str(address[0]), permit)  # a single bad one spoils the name: it may be the next answer's only one
    connection = await start_connection(found, happy_eyeballs_delay=HAPPY_EYEBALLS_SECONDS)
    try:
        return await asyncio.open_connection(sock=connection)
    except BaseException:
        connection.close()
        raise


async def leave(writer: asyncio.StreamWriter) -> None:
    """Close, and do not wait for a server that does not read. Nothing is left of the connection."""
    writer.close()
    try:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await writer.wait_closed()
    finally:
        writer.transport.abort()
