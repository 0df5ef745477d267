"""Telling systemd how we are (sd_notify), where it started us. Elsewhere none of this does anything."""

from __future__ import annotations

import asyncio
import os
import socket


def tell(state: str) -> None:
    """Send ``READY=1``, ``STOPPING=1``, ``WATCHDOG=1`` to who asked for it with NOTIFY_SOCKET. A message that cannot be sent is nobody's trouble."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as line:
        try:
            line.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
        except OSError:
            pass


async def watchdog() -> None:
    """Say that the event loop turns, twice as often as WATCHDOG_USEC wants it; returns at once where nobody wants it."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdigit() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return
    while True:
        tell("WATCHDOG=1")
        await asyncio.sleep(int(microseconds) / 2e6)
