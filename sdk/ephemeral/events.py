"""Where events leave for the predictor: a bounded queue and one thread. Never blocks, never raises.

Losing an event costs a worse guess; holding one up would cost the conversation. So the oldest are dropped, and counted.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
import time
import weakref
from collections import deque
from typing import Any

TEXT_LIMIT = 1 << 20
"""Characters kept of one event's text; the rest of it is dropped."""

_BATCH_CHARACTERS = 1 << 20
_REQUEST_SECONDS = 2.0
_BACKOFF_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)


class EventSink:
    """Sends events to the predictor at ``address`` (``unix:/path`` or ``/path``), in order, as soon as they come.

    What piles up while a request is under way goes out together in the next. While nobody listens, up to ``limit``
    events or ``limit_characters`` of text wait. ``sent`` and ``dropped`` count events. The thread starts with the first
    event and, after a fork, anew in the child.
    """

    def __init__(self, address: str, limit: int = 20_000, limit_characters: int = 32 << 20) -> None:
        self.sent = 0
        self.dropped = 0
        self._path = address.removeprefix("unix:")
        if not self._path.startswith("/"):
            raise ValueError(f"events go to a Unix socket, and {address!r} is none: write unix:/path")
        self._limit = limit
        self._limit_characters = limit_characters
        self._fresh()
        method = weakref.WeakMethod(self._fresh)
        os.register_at_fork(after_in_child=lambda: (fresh := method()) and fresh())

    def _fresh(self) -> None:
        """An empty queue and no thread: at the start, and in a forked child, where the parent's thread and the state of
        its locks mean nothing."""
        self._changed = threading.Condition(threading.Lock())
        self._queue: deque[tuple[dict[str, Any], int]] = deque()
        self._characters = 0
        self._closing_until: float | None = None
        self._thread: threading.Thread | None = None

    def put(self, event: dict[str, Any]) -> None:
        """Queue one event (a dict with the fields of ``wire.Event``) and return at once."""
        text = event.get("text", "")
        if len(text) > TEXT_LIMIT:
            text = text[:TEXT_LIMIT]
            event = {**event, "text": text}
        try:
            with self._changed:
                if self._closing_until is not None:
                    self.dropped += 1
                    return
                self._queue.append((event, len(text)))
                self._characters += len(text)
                while len(self._queue) > self._limit or self._characters > self._limit_characters:
                    self._characters -= self._queue.popleft()[1]
                    self.dropped += 1
                if self._thread is None:
                    thread = threading.Thread(target=self._run, name="ephemeral-events", daemon=True)
                    thread.start()
                    self._thread = thread
                self._changed.notify()
        except RuntimeError:  # no thread can be started any more: the interpreter is going down
            self.dropped += 1

    def close(self, timeout: float = 0.5) -> None:
        """Send what waits, for at most ``timeout`` seconds; count the rest as dropped. Later events are dropped."""
        with self._changed:
            if self._closing_until is not None:
                return
            self._closing_until = time.monotonic() + timeout
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout)
        with self._changed:
            self.dropped += len(self._queue)
            self._queue.clear()

    # ------------------------------------------------------------------------------------------- on the thread

    def _run(self) -> None:
        connection: _UnixConnection | None = None
        failures = 0
        while batch := self._next_batch():
            try:
                lines = b"".join(_line(event) for event, _ in batch)
            except (MemoryError, TypeError, ValueError):  # this batch is lost, and not the thread
                self.dropped += len(batch)
                continue
            while True:
                reused = connection is not None
                connection = connection or _UnixConnection(self._path)
                try:
                    status = connection.post(lines)
                except (OSError, http.client.HTTPException) as error:
                    connection.close()
                    connection = None
                    if reused and not isinstance(error, TimeoutError):
                        continue  # the predictor had closed an idle connection: that is no failure
                    nobody = isinstance(error, (FileNotFoundError, ConnectionRefusedError, BlockingIOError))
                    if nobody and self._wait(_BACKOFF_SECONDS[min(failures, len(_BACKOFF_SECONDS) - 1)]):
                        failures += 1
                        continue  # with the same batch
                    self.dropped += len(batch)
                else:
                    failures = 0
                    if status < 300:
                        self.sent += len(batch)
                    else:
                        self.dropped += len(batch)
                break
        if connection is not None:
            connection.close()

    def _next_batch(self) -> list[tuple[dict[str, Any], int]]:
        """All that waits, up to a size; waits for the first. Empty when the sink is closed and nothing is left."""
        with self._changed:
            while not self._queue and self._closing_until is None:
                self._changed.wait()
            if self._closing_until is not None and time.monotonic() > self._closing_until:
                return []
            batch = []
            characters = 0
            while self._queue and characters < _BATCH_CHARACTERS:
                event, size = self._queue.popleft()
                self._characters -= size
                characters += size
                batch.append((event, size))
            return batch

    def _wait(self, seconds: float) -> bool:
        """Sleep, unless the sink is closing. Whether there is time for another try."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while self._closing_until is None and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            return self._closing_until is None


def _line(event: dict[str, Any]) -> bytes:
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("predictor", timeout=_REQUEST_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)

    def post(self, lines: bytes) -> int:
        self.request("POST", "/v1/events", lines, {"Content-Type": "application/x-ndjson"})
        response = self.getresponse()
        response.read()
        return response.status
