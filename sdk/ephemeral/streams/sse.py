"""Server-sent events, incrementally: bytes cut anywhere in, whole events out."""

from __future__ import annotations

from typing import NamedTuple


class ServerSentEvent(NamedTuple):
    """One dispatched event. ``event`` is empty when the stream named none."""

    event: str
    data: str


class SSEReader:
    """Reads ``text/event-stream`` as the HTML standard defines it (LF, CR and CRLF lines, comments, several data lines).

    Work is proportional to the bytes fed. An event whose lines exceed ``limit_bytes`` together is dropped and counted in
    ``oversized``; the events after it are read again.
    """

    def __init__(self, limit_bytes: int = 4 << 20) -> None:
        self.oversized = 0
        self._limit = limit_bytes
        self._line: list[bytes] = []  # pieces of the line that has not ended yet
        self._line_bytes = 0  # its length, kept or not
        self._event_bytes = 0  # length of all lines of the event that has not ended yet
        self._event = ""
        self._data: list[str] = []
        self._after_cr = False  # the last piece ended in CR: an LF that follows belongs to it
        self._first_line = True

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """The events that ``data`` completes."""
        events: list[ServerSentEvent] = []
        if not data:
            return events
        if self._after_cr:
            data = data.removeprefix(b"\n")
        self._after_cr = data.endswith(b"\r")
        for piece in data.splitlines(keepends=True):
            text = piece.rstrip(b"\r\n")
            self._line_bytes += len(text)
            self._event_bytes += len(text)
            if self._event_bytes <= self._limit:
                self._line.append(text)
            else:  # forget at once what is too large, and remember only that it was
                self._line.clear()
                self._data.clear()
            if len(text) < len(piece):
                self._end_line(events)
        return events

    def close(self) -> list[ServerSentEvent]:
        """The stream is over: the event that lacked only its blank line, if any (some providers forget it)."""
        events: list[ServerSentEvent] = []
        if self._line_bytes:
            self._end_line(events)
        self._dispatch(events)
        return events

    def _end_line(self, events: list[ServerSentEvent]) -> None:
        line = b"".join(self._line)
        blank = self._line_bytes == 0
        self._line.clear()
        self._line_bytes = 0
        if self._first_line:
            self._first_line = False
            line = line.removeprefix(b"\xef\xbb\xbf")
        if blank:
            self._dispatch(events)
            return
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" ").decode("utf-8", "replace"))
        elif field == b"event":
            self._event = value.removeprefix(b" ").decode("utf-8", "replace")

    def _dispatch(self, events: list[ServerSentEvent]) -> None:
        if self._event_bytes > self._limit:
            self.oversized += 1
        elif self._data:
            events.append(ServerSentEvent(self._event, "\n".join(self._data)))
        self._event = ""
        self._data.clear()
        self._event_bytes = 0
