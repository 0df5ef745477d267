"""A worker's side of the copy. Nothing here waits and nothing raises: whatever happens to the copy, the traffic does not notice."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable

from ephemeral_proxy.copies.frames import PACKET_BYTES, Kind, pack, pack_json
from ephemeral_proxy.counters import Row

log = logging.getLogger("ephemeral.proxy")

QUEUE_BYTES = 8 << 20
"""What may wait for the reader. Then the oldest goes."""

# Headers the reader has a use for: who talks, in which session, how the body is coded. None of them is a credential.
_USEFUL = re.compile(
    r"x-ephemeral-.*|user-agent|content-encoding|content-type|baggage|traceparent|x-stainless-retry-count|sec-websocket-extensions"
    r"|(?:.*-)?(?:session|thread|trace|conversation)-id"
)


class Copies:
    """Sends the copies of this worker over ``connection`` (SEQPACKET). ``row`` counts what is sent and what is dropped."""

    def __init__(self, connection: socket.socket, row: Row, queue_bytes: int = QUEUE_BYTES) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._row = row
        self._limit = queue_bytes
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._packet = b""  # taken from the queue, and not accepted by the socket yet
        self._waiting = False
        self._scheduled = False
        # Numbers are not used again by the worker that takes this one's place: the reader may still hold its exchanges.
        self._numbers = itertools.count(time.time_ns() // 1000)
        self.put(pack(Kind.HELLO, 0, 0, time.time(), b""))

    def begin(self, method: str, path: str, provider: str, fields: Iterable[tuple[str, str]]) -> Copy:
        """A new exchange. ``fields``: the request's headers, names in lower case."""
        copy = Copy(self, next(self._numbers))
        copy.begin(method, path, provider, fields)
        return copy

    def put(self, frames: list[bytes]) -> None:
        for frame in frames:
            self._queue.append(frame)
            self._bytes += len(frame)
        while self._bytes > self._limit:
            self._bytes -= len(self._queue.popleft())
            self._row.copies_dropped += 1
        if not self._scheduled and not self._waiting:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def failed(self) -> None:
        """Something of the copy raised. It is counted, and logged without what it was about."""
        self._row.copies_failed += 1
        log.warning("a copy failed: the traffic goes on without it", exc_info=log.isEnabledFor(logging.DEBUG))

    def flush(self) -> None:
        """Hand over now what the socket takes, instead of in a moment."""
        if not self._waiting:
            self._flush()

    def _flush(self) -> None:
        self._scheduled = False
        try:
            while self._packet or self._queue:
                if not self._packet:
                    self._packet = self._next_packet()
                self._socket.send(self._packet)
                self._packet = b""
        except (BlockingIOError, InterruptedError):
            if not self._waiting:
                self._waiting = True
                asyncio.get_running_loop().add_writer(self._socket, self._writable)
        except OSError:  # there is no reader, and no socket to wait for: what waits is lost
            self._row.copies_dropped += len(self._queue) + 1
            self._packet = b""
            self._queue.clear()
            self._bytes = 0

    def _writable(self) -> None:
        asyncio.get_running_loop().remove_writer(self._socket)
        self._waiting = False
        self._flush()

    def _next_packet(self) -> bytes:
        frames = [self._queue.popleft()]
        size = len(frames[0])
        while self._queue and size + len(self._queue[0]) <= PACKET_BYTES:
            frames.append(self._queue.popleft())
            size += len(frames[-1])
        self._bytes -= size
        self._row.frames_sent += len(frames)
        return b"".join(frames)


class Copy:
    """The copy of one exchange. Every method may be called at any time, and does nothing once it is over."""

    def __init__(self, copies: Copies, exchange: int) -> None:
        self._copies = copies
        self._exchange = exchange
        self._next = 0
        self._over = False

    def begin(self, method: str, path: str, provider: str, fields: Iterable[tuple[str, str]]) -> None:
        self._tell(Kind.BEGIN, {"method": method, "path": path, "provider": provider, "headers": _useful(fields)})

    def request(self, data: bytes) -> None:
        if data:
            self._send(Kind.REQUEST, data)

    def request_end(self) -> None:
        self._send(Kind.REQUEST_END, b"")

    def answer(self, status: int, fields: Iterable[tuple[str, str]]) -> None:
        """``fields``: the answer's headers, names in lower case."""
        self._tell(Kind.ANSWER, {"status": status, "headers": _useful(fields)})

    def response(self, data: bytes) -> None:
        if data:
            self._send(Kind.RESPONSE, data)

    def from_client(self, data: bytes) -> None:
        self._send(Kind.FROM_CLIENT, data)

    def from_server(self, data: bytes) -> None:
        self._send(Kind.FROM_SERVER, data)

    def end(self, cut: bool = False) -> None:
        self._send(Kind.CUT if cut else Kind.END, b"")
        self._over = True

    def _tell(self, kind: Kind, content: dict[str, object]) -> None:
        self._contained(lambda at: pack_json(kind, self._next, self._exchange, at, content))

    def _send(self, kind: Kind, data: bytes) -> None:
        self._contained(lambda at: pack(kind, self._next, self._exchange, at, data))

    def _contained(self, frames: Callable[[float], list[bytes]]) -> None:
        if self._over:
            return
        try:
            made = frames(time.time())
            self._next += len(made)
            self._copies.put(made)
        except Exception:
            self._over = True
            self._copies.failed()


def _useful(fields: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name: value[:4096] for name, value in fields if _USEFUL.fullmatch(name)}
