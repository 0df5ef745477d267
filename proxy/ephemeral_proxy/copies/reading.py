"""The reader's side of the copy: frames back into exchanges, and these into events for the predictor.

It is a process of its own. Reading a long history takes milliseconds, and a stranger's stream may be built to take more:
none of that may stand before a byte of somebody's answer.
"""

from __future__ import annotations

import contextlib
import gc
import heapq
import json
import os
import resource
import selectors
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from itertools import chain, takewhile
from pathlib import Path

from ephemeral.events import EventSink
from ephemeral.identity import Identity
from ephemeral.identity_memory import FileMemory
from ephemeral.streams import apis, sockets
from ephemeral.streams.conversation import BODY_LIMIT_BYTES, Conversations, Exchange
from ephemeral_proxy.copies.encodings import DECODERS
from ephemeral_proxy.copies.frames import PACKET_BYTES, Frame, Kind, unpack
from ephemeral_proxy.copies.websocket import Direction
from ephemeral_proxy.counters import Row

BODIES_BYTES = 256 << 20
"""What the bodies of all requests under way may hold together; beyond it a request passes unread."""
MEMORY_BYTES = 4 << 30
"""Address space of the reader: a stream that unfolds into more fails to be read, and the machine does not notice."""
_PACKETS_AT_ONCE = 64
_NICE = 5
"""Where there are not enough cores for all, the traffic goes first."""
_DRAIN_SECONDS = 0.4


class Reader:
    """Takes the frames of several workers, in order for each."""

    def __init__(self, conversations: Conversations, row: Row) -> None:
        self._conversations = conversations
        self._row = row
        self._open: dict[tuple[int, int], _Open] = {}
        self._held = 0  # bytes of request bodies

    def take(self, worker: int, frame: Frame) -> None:
        """Read one frame. Never raises: what cannot be read is counted."""
        self._row.frames_read += 1
        if frame.kind is Kind.HELLO:
            for key in [key for key in self._open if key[0] == worker]:
                self._end(key, cut=True, at=frame.at)
            return
        key = (worker, frame.exchange)
        if frame.kind is Kind.BEGIN:
            if key in self._open:
                self._end(key, cut=True, at=frame.at)
            self._open[key] = _Open(self._conversations)
            self._row.conversations += 1
        exchange = self._open.get(key)
        if exchange is None:
            return
        if frame.number != exchange.expected:  # frames between were dropped: what follows would be read as nonsense
            self._conversations.failures += 1
            self._end(key, cut=True, at=frame.at)
            return
        exchange.expected += 1
        self._held -= exchange.held
        try:
            exchange.take(frame, room=BODIES_BYTES - self._held)
        except Exception:  # a stranger's bytes, and somebody else's parsers
            self._conversations.failures += 1
            exchange.silence()
        self._held += exchange.held
        if frame.kind in (Kind.END, Kind.CUT):
            self._end(key, cut=frame.kind is Kind.CUT, at=frame.at)

    def close(self) -> None:
        """No more will come: whatever is open is cut."""
        for key in list(self._open):
            self._end(key, cut=True, at=time.time())

    def _end(self, key: tuple[int, int], cut: bool, at: float) -> None:
        exchange = self._open.pop(key)
        self._held -= exchange.held
        try:
            exchange.end(cut, at)
        except Exception:
            self._conversations.failures += 1


class _Open:
    """An exchange under way."""

    def __init__(self, conversations: Conversations) -> None:
        self.expected = 0
        self._conversations = conversations
        self._path = ""
        self._api: apis.Api | None = None
        self._provider = ""
        self._headers: dict[str, str] = {}
        self._body: bytearray | None = bytearray()
        self._exchange: Exchange | None = None
        self._socket: sockets.Socket | None = None
        self._from_client: Direction | None = None
        self._from_server: Direction | None = None
        self._silent = False

    @property
    def held(self) -> int:
        return len(self._body) if self._body is not None else 0

    def silence(self) -> None:
        """Nothing more of it is read."""
        self._silent = True
        self._body = None
        self._from_client = self._from_server = None

    def take(self, frame: Frame, room: int) -> None:
        if self._silent:
            return
        match frame.kind:
            case Kind.BEGIN:
                said = json.loads(frame.payload)
                self._path, self._headers, self._provider = said["path"], said["headers"], said["provider"]
                self._api = apis.find(said["method"], self._path)
            case Kind.REQUEST:
                self._request(frame.payload, room)
            case Kind.REQUEST_END:
                self._begin(frame.at)
            case Kind.ANSWER:
                self._begin(frame.at)
                self._answer(json.loads(frame.payload), frame.at)
            case Kind.RESPONSE:
                if self._exchange:
                    self._exchange.feed(frame.payload, frame.at)
            case Kind.FROM_CLIENT:
                if self._socket and self._from_client:
                    for text in self._from_client.feed(frame.payload):
                        self._socket.from_client(text, frame.at)
            case Kind.FROM_SERVER:
                if self._socket and self._from_server:
                    for text in self._from_server.feed(frame.payload):
                        self._socket.from_server(text, frame.at)

    def end(self, cut: bool, at: float) -> None:
        if self._exchange:
            self._exchange.end(cut, at)
        if self._socket:
            self._socket.end(at)

    def _request(self, data: bytes, room: int) -> None:
        if self._body is None:
            return
        if len(self._body) + len(data) > min(BODY_LIMIT_BYTES, room):
            self._body = None
            self._conversations.failures += 1
        else:
            self._body += data

    def _begin(self, at: float) -> None:
        """The request has come whole (or its answer came first): read it, once."""
        body, self._body = self._body, None
        if body is not None and self._api is not None:
            self._exchange = self._conversations.begin(
                self._api, self._path, self._headers, bytes(body), provider=self._provider, at=at
            )

    def _answer(self, said: dict, at: float) -> None:
        if said["status"] == 101:
            factory = sockets.find(self._path)
            if factory is None:
                self.silence()
                return
            extensions = said["headers"].get("sec-websocket-extensions", "")
            self._from_client = Direction(masked=True, extensions=extensions)
            self._from_server = Direction(masked=False, extensions=extensions)
            self._socket = factory(self._conversations, self._headers, self._provider, self._path)
        elif self._exchange:
            self._exchange.answer(said["status"], said["headers"])


class Intake:
    """The frames of all workers, in an order in which nothing comes before what it followed from.

    The next turn of a conversation may take another worker's way than the answer before it. That answer's end was in its socket
    before the client had it. So when a frame has been received, what is received from the others *after that* and is older
    goes before it.
    """

    def __init__(self, connections: Sequence[socket.socket]) -> None:
        self._connections = connections
        self._held: list[list[Frame]] = [[] for _ in connections]
        self.malformed = 0

    @property
    def holds(self) -> bool:
        return any(self._held)

    def frames(self) -> Iterator[tuple[int, Frame]]:
        """(worker, frame) for what has come; some of it may be held until the next call."""
        first = self._held if self.holds else self._receive()
        second = self._receive() if len(first) > 1 else [[]]
        latest = max((frames[-1].at for frames in first if frames), default=0.0)
        older = [list(takewhile(lambda frame: frame.at <= latest, frames)) for frames in second]
        self._held = [frames[len(taken) :] for frames, taken in zip(second, older, strict=True)]
        ways = [[(worker, frame) for frame in chain(*frames)] for worker, frames in enumerate(zip(first, older, strict=True))]
        return heapq.merge(*ways, key=lambda one: one[1].at)

    def _receive(self) -> list[list[Frame]]:
        return [self._received(connection) for connection in self._connections]

    def _received(self, connection: socket.socket) -> list[Frame]:
        """What waits in a socket, up to a number of packets: the other workers have some, too."""
        frames: list[Frame] = []
        with contextlib.suppress(BlockingIOError):
            for _ in range(_PACKETS_AT_ONCE):
                try:
                    frames += unpack(connection.recv(2 * PACKET_BYTES))
                except ValueError:
                    self.malformed += 1
        return frames


def _bound_memory() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    bound = MEMORY_BYTES if most == resource.RLIM_INFINITY else min(MEMORY_BYTES, most)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (bound, most))


def run(connections: Sequence[socket.socket], row: Row, predictor: Path, memory_file: Path) -> None:
    """The process: read until SIGTERM, then what still waits, for a moment. Events go to the socket ``predictor``; whose
    conversations were seen is remembered in ``memory_file``."""
    os.nice(_NICE)
    _bound_memory()
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    sink = EventSink(f"unix:{predictor}")
    memory = FileMemory(memory_file)
    conversations = Conversations(sink.put, DECODERS, Identity(memory))
    reader = Reader(conversations, row)
    gc.freeze()
    intake = Intake(connections)
    before = row.events_sent, row.events_dropped, row.unreadable  # counted by the readers before us
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            connection.setblocking(False)
            selector.register(connection, selectors.EVENT_READ)
        deadline = 0.0
        while True:
            if stopping and not deadline:
                deadline = time.monotonic() + _DRAIN_SECONDS
            ready = intake.holds or selector.select(0.05 if stopping else 0.5)
            for worker, frame in intake.frames():
                reader.take(worker, frame)
            row.alive_at = int(time.monotonic())
            row.events_sent, row.events_dropped = before[0] + sink.sent, before[1] + sink.dropped
            row.unreadable = before[2] + conversations.failures + intake.malformed
            if stopping and (not ready or time.monotonic() > deadline):
                break
    reader.close()
    memory.close()
    sink.close()


