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
from urllib.parse import parse_qs, urlencode

from ephemeral_proxy.copies.frames import PACKET_BYTES, Kind, exchange_of, pack, pack_json
from ephemeral_proxy.counters import Row

log = logging.getLogger("ephemeral.proxy")

_BROKEN_LIMIT = 10_000
_LAST = 0xFFFFFFFF  # a number that no frame in order has: what came before it is not whole

QUEUE_BYTES = 48 << 20
"""What may wait for the reader: more than the longest body that is read. Then the oldest goes."""
BUSY_BYTES = 8 << 20
"""While so much waits, no further conversation is copied: better some whole than all in pieces."""
_AT_ONCE = 4  # packets handed over before the last byte of an answer leaves

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
        self._waiting = False
        self._scheduled = False
        self._complained = False
        self._broken: set[int] = set()  # exchanges of which a frame was dropped
        # Numbers are not used again by the worker that takes this one's place: the reader may still hold its exchanges.
        self._numbers = itertools.count(time.time_ns() // 1000)
        [self._packet] = pack(Kind.HELLO, 0, 0, time.time(), b"")  # taken from the queue, and not accepted by the socket yet
        row.frames_sent += 1

    def begin(self, method: str, path: str, provider: str, fields: Iterable[tuple[str, str]]) -> Copy | None:
        """A new exchange. ``fields``: the request's headers, names in lower case. None when the reader is too far behind."""
        if self._bytes > BUSY_BYTES:
            self._row.copies_dropped += 1
            return None
        copy = Copy(self, next(self._numbers))
        copy.begin(method, path, provider, fields)
        return copy

    def put(self, frames: list[bytes]) -> None:
        for frame in frames:
            self._queue.append(frame)
            self._bytes += len(frame)
        while self._bytes > self._limit:
            dropped = self._queue.popleft()
            self._bytes -= len(dropped)
            self._row.copies_dropped += 1
            self._cut(exchange_of(dropped))
        self._schedule()

    def _schedule(self) -> None:
        if self._queue and not self._scheduled and not self._waiting:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _cut(self, exchange: int) -> None:
        """A frame of ``exchange`` is lost: the reader is told that it is over, once, after all that still waits."""
        if exchange not in self._broken and exchange:
            if len(self._broken) > _BROKEN_LIMIT:  # those that never ask again
                self._broken.clear()
            self._broken.add(exchange)
            [end] = pack(Kind.CUT, _LAST, exchange, time.time(), b"")
            self._queue.append(end)
            self._bytes += len(end)

    def over(self, exchange: int) -> bool:
        """Whether ``exchange`` was given up because a frame of it was dropped. It is asked until it says so."""
        if exchange in self._broken:
            self._broken.discard(exchange)
            return True
        return False

    def failed(self) -> None:
        """Something of the copy raised. It is counted, and logged the first time, without what it was about."""
        self._row.copies_failed += 1
        if not self._complained:
            self._complained = True
            log.warning("a copy failed: the traffic goes on without it", exc_info=log.isEnabledFor(logging.DEBUG))

    def flush(self) -> None:
        """Hand over now what the socket takes, or the first of it, instead of in a moment."""
        try:
            if not self._waiting:
                self._flush(_AT_ONCE)
        except Exception:
            self.failed()

    def _flush(self, packets: int = 1 << 30) -> None:
        self._scheduled = False
        try:
            for _ in range(packets):
                if not (self._packet or self._queue):
                    return
                if not self._packet:
                    self._packet = self._next_packet()
                self._socket.send(self._packet)
                self._packet = b""
            self._schedule()
        except (BlockingIOError, InterruptedError):
            if not self._waiting:
                self._waiting = True
                asyncio.get_running_loop().add_writer(self._socket, self._writable)
        except OSError:  # the socket is gone for good: what waits is lost
            self._row.copies_dropped += len(self._queue)
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
        self._tell(Kind.BEGIN, {"method": method, "path": _told(path), "provider": provider, "headers": _useful(fields)})

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
            if self._copies.over(self._exchange):
                self._over = True
                return
            made = frames(time.time())
            self._next += len(made)
            self._copies.put(made)
        except Exception:
            self._over = True
            self._copies.failed()


def _told(target: str) -> str:
    """A path without its query, which may hold a key; but for the model, which Realtime names there."""
    path, _, query = target.partition("?")
    model = parse_qs(query).get("model") if "model=" in query else None
    return f"{path}?{urlencode({'model': model[0][:200]})}" if model else path


def _useful(fields: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name: value[:4096] for name, value in fields if _USEFUL.fullmatch(name)}
