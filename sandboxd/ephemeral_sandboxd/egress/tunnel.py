"""The host's end of a sandbox's tunnel: frames to streams and back, one proxied connection a number. See guest/tunnel.py for the other end."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from ephemeral.tasks import Tasks
from ephemeral_sandboxd.egress import reaching
from ephemeral_sandboxd.egress.limits import Limits, Pace
from ephemeral_sandboxd.egress.proxy import ProgramGone, Proxy
from ephemeral_sandboxd.egress.records import EgressRecord, OnRecord
from ephemeral_sandboxd.egress.rules import Network, parse

log = logging.getLogger(__name__)

Send = Callable[[dict[str, Any]], None]
WINDOW_BYTES = 256 << 10
PIECE_BYTES = 48 << 10
LARGEST_NUMBER = 1 << 53


class TunnelStream:
    """One connection of a program in the sandbox: what it sends can be read, what is written goes to it. Both sides are bounded by credit."""

    def __init__(self, number: int, send: Send):
        self._number = number
        self._send = send
        self._arrived = bytearray()
        self._ended = False
        self._gone = False
        self._credit = WINDOW_BYTES
        """Bytes that may still be sent to the guest."""
        self._owed = 0
        """Bytes that were read, and of which the guest was not told yet that it may send as many again."""
        self._changed = asyncio.Event()

    async def read(self) -> bytes:
        """The next bytes, as many as there are; empty at the end. Raises ProgramGone."""
        while not self._arrived and not self._ended:
            await self._wait()
        data = bytes(self._arrived[:PIECE_BYTES])
        del self._arrived[:len(data)]
        self._owed += len(data)
        if self._owed >= WINDOW_BYTES // 4 and not self._gone:
            self._send({"op": "net_credit", "c": self._number, "bytes": self._owed})
            self._owed = 0
        return data

    async def write(self, data: bytes) -> None:
        """Returns when all is under way; waits while the program does not take it. Raises ProgramGone."""
        view = memoryview(data)
        while view:
            while self._credit <= 0 or self._gone:
                await self._wait()
            piece = view[:min(PIECE_BYTES, self._credit)]
            self._credit -= len(piece)
            self._send({"op": "net_data", "c": self._number, "data": base64.b64encode(piece).decode()})
            view = view[len(piece):]

    def end(self) -> None:
        """Nothing more will be written."""
        if not self._gone:
            self._send({"op": "net_eof", "c": self._number})

    def close(self) -> None:
        """No frame goes out after this one."""
        if not self._gone:
            self._gone = True
            self._send({"op": "net_close", "c": self._number})

    def take(self, op: str, frame: dict[str, Any]) -> bool:
        """A frame of this connection. One that breaks the rules ends it, and is answered by False."""
        kept = True
        if op == "net_close":
            self._gone = True
        elif not (self._take_data(frame.get("data")) if op == "net_data"
                  else self._take_credit(frame.get("bytes")) if op == "net_credit"
                  else self._take_end() if op == "net_eof" else False):
            kept = False
            self.close()
        self._changed.set()
        return kept

    def _take_data(self, text: object) -> bool:
        if not isinstance(text, str) or len(text) > 2 * WINDOW_BYTES or self._ended:
            return False
        try:
            data = base64.b64decode(text, validate=True)
        except (ValueError, binascii.Error):
            return False
        if len(self._arrived) + self._owed + len(data) > WINDOW_BYTES:
            return False
        self._arrived += data
        return True

    def _take_credit(self, more: object) -> bool:
        if not isinstance(more, int) or not 0 < more <= WINDOW_BYTES - self._credit:
            return False
        self._credit += more
        return True

    def _take_end(self) -> bool:
        self._ended = True
        return True

    async def _wait(self) -> None:
        """Until a frame of this connection has come. Raises ProgramGone."""
        if not self._gone:
            self._changed.clear()
            await self._changed.wait()
        if self._gone:
            raise ProgramGone


class Egress:
    """The way out of one sandbox. ``receive`` takes its tunnel's frames on the event loop and never raises."""

    def __init__(self, allow: Sequence[str], send: Send, on_record: OnRecord, *, permit: Collection[Network] = (),
                 limits: Limits | None = None, resolve: reaching.Resolve = reaching.system):
        """``allow`` as egress.parse_domains() writes it; ``permit``: networks that count as public (for tests: never from settings);
        ``limits`` default to the settings'; ``resolve``: who knows the names' addresses.

        Raises errors.BadRequest for an entry that is no domain.
        """
        self._send = send
        self._on_record = on_record
        self._limits = limits or Limits.from_settings()
        self._pace = Pace(self._limits)
        self._proxy = Proxy([parse(text) for text in allow], on_record, self._limits, self._pace, permit, resolve)
        self._streams: dict[int, TunnelStream] = {}
        self._tasks = Tasks()
        self._closed = False
        self._warned = False

    @property
    def active(self) -> int:
        """Connections that are open now."""
        return len(self._streams)

    def receive(self, frame: dict[str, Any]) -> None:
        """One ``net_…`` frame out of the sandbox, whatever it holds."""
        op, number = frame.get("op"), frame.get("c")
        if self._closed or not isinstance(op, str) or not isinstance(number, int) or not 0 <= number < LARGEST_NUMBER:
            return
        if op == "net_open":
            self._open(number)
        elif (stream := self._streams.get(number)) and not stream.take(op, frame) and not self._warned:
            self._warned = True  # once: what a sandbox sends must not fill the log
            log.warning("a connection of a sandbox broke the tunnel's rules and was cut")

    async def close(self) -> None:
        """Cut every connection; nothing is left open."""
        self._closed = True
        for stream in self._streams.values():
            stream.close()
        await self._tasks.cancel()
        self._streams.clear()  # of a task that was cancelled before it began

    def _open(self, number: int) -> None:
        if number in self._streams:
            return
        if len(self._streams) >= self._limits.connections:
            self._turn_away(number)
            return
        stream = self._streams[number] = TunnelStream(number, self._send)
        self._tasks.start(self._serve(number, stream), "egress connection")

    def _turn_away(self, number: int) -> None:
        """One connection too many: it is told so in a single frame, and nothing is kept of it."""
        if self._pace.spare():
            reason = f"this sandbox has {self._limits.connections} connections open, and may have no more (EPHEMERAL_EGRESS_CONNECTIONS): close some first"
            self._on_record(EgressRecord(at=time.time(), host="", port=0, scheme="http", verdict="refused", reason=reason))
            answer = f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: {len(reason) + 1}\r\nConnection: close\r\n\r\n{reason}\n"
            self._send({"op": "net_data", "c": number, "data": base64.b64encode(answer.encode()).decode()})
        self._send({"op": "net_close", "c": number})

    async def _serve(self, number: int, stream: TunnelStream) -> None:
        try:
            await self._proxy.serve(stream)
        except OSError:
            pass  # one of the two ends has gone; its record says so
        finally:
            stream.close()
            self._streams.pop(number, None)
