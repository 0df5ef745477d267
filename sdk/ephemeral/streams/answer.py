"""A model's answer into events, whatever protocol it comes in: what the readers of all protocols share.

A protocol's reader is a subclass that says what one message of the stream, and what a whole answer, means.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Literal

from ephemeral.streams.json_string import CodeArguments, Surrogates, code_keys
from ephemeral.streams.sse import SSEReader
from ephemeral.streams.turn import Event, string

Framing = Literal["sse", "lines", "array", "document", "messages"]
"""How an answer comes: server-sent events, a JSON object a line, a JSON array of objects (or, in its place, one object),
one JSON document, or messages of a WebSocket."""

LIMIT_BYTES = 16 << 20
"""A longer answer that is one document, or a longer line, is not read."""

_CALLS_PER_ANSWER = 256
_THOUGHT = "</think>"
"""Ends the reasoning of models that send it as part of their text."""


class AnswerReader:
    """Reads one answer. Never raises on what a stranger sent: the first malformed piece ends the reading and is counted.

    ``feed`` takes plain bytes (``message`` the text of one WebSocket message), ``close`` says that no more will come. Both
    return events; the last of all is ``turn_ended``, once. ``marks`` (ids of the answer and of its calls, and the
    ``turn.mark_of`` its text) tell the answer apart in later requests.
    """

    def __init__(self, framing: Framing, limit_bytes: int = LIMIT_BYTES) -> None:
        self.malformed = 0
        self.ended = False
        self.calls: list[str] = []
        self._ids: list[str] = []  # of the answer as a whole
        self._others: list[str] = []  # marks beside ids
        self._streamed = framing != "document"
        self._split = _SPLITTERS[framing](limit_bytes)
        self._dead = False
        self._finish = ""
        self._text = _TextMark()
        self._spoken: _TextMark | None = None  # what follows reasoning that came inline: apps send only that back
        self._tail = ""
        self._texts = {"assistant_text": Surrogates(), "reasoning_text": Surrogates()}
        self._open: dict[object, Call] = {}

    @property
    def marks(self) -> list[str]:
        texts = (self._text.hex(), self._spoken.hex() if self._spoken else "")
        return [*self._ids, *self.calls, *self._others, *filter(None, texts)]

    def feed(self, data: bytes) -> list[Event]:
        """The events that the next plain bytes of the answer complete."""
        if self._dead or self.ended:
            return []
        return self._guarded(self._messages(self._split.feed(data)))

    def message(self, text: str) -> list[Event]:
        """The events of one message of a WebSocket."""
        if self._dead or self.ended:
            return []
        return self._guarded(self._messages([("", text)]))

    def close(self, cut: bool = False) -> list[Event]:
        """The answer is over; ``cut`` says that the connection broke."""
        events: list[Event] = []
        if not self._dead and not self.ended:
            if self._streamed or not cut:
                events += self._guarded(self._messages(self._split.close()))
            self.malformed += self._split.oversized
        if not self.ended:
            events += self._end()
        return events

    # ------------------------------------------------------------------------------------ what a protocol fills in

    def _piece(self, name: str, message: dict[str, Any]) -> Iterator[Event]:
        """One message of a stream; ``name`` is its ``event:`` line, where it has one."""
        raise NotImplementedError

    def _whole(self, answer: dict[str, Any]) -> Iterator[Event]:
        """A whole answer that came as one document."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------ what it builds with

    def _identify(self, identity: object) -> None:
        """The answer's own id, as later requests may name it."""
        known = string(identity)
        if known and known not in self._ids and len(self._ids) < 8:
            self._ids.append(known)

    def _recognise(self, mark: str) -> None:
        """One more thing that tells the answer apart in later requests, beside its ids and its text."""
        if mark and mark not in self._others and len(self._others) < _CALLS_PER_ANSWER:
            self._others.append(mark)

    def _say(self, kind: Literal["assistant_text", "reasoning_text"], text: object) -> Iterator[Event]:
        """The next piece of the answer's text."""
        if not isinstance(text, str) or not text:
            return
        text = self._texts[kind].feed(text)
        if kind == "assistant_text":
            self._mark(text)
        if text:
            yield {"kind": kind, "text": text}

    def _mark(self, text: str) -> None:
        self._text.add(text)
        before = len(self._tail)
        seen = self._tail + text
        end = seen.rfind(_THOUGHT)
        if end >= 0:
            self._spoken = _TextMark()
            self._spoken.add(seen[end + len(_THOUGHT) :])
        elif self._spoken:
            self._spoken.add(seen[before:])
        self._tail = seen[1 - len(_THOUGHT) :]

    def _call(self, key: object, identity: object = "", mark: str = "") -> Call | None:
        """The call that ``key`` stands for in this stream, made at its first mention. ``mark`` is what tells it apart in later
        requests where the provider gives no id, or the app keeps none. None when there are too many."""
        call = self._open.get(key)
        if call is None:
            if len(self.calls) >= _CALLS_PER_ANSWER:
                return None
            known = string(identity) or mark
            call = self._open[key] = Call(known or f"{self._ids[0] if self._ids else 'call'}:{len(self.calls)}")
            self.calls.append(call.id)
            if mark != call.id:
                self._recognise(mark)
        return call

    def _end(self, reason: object = None) -> list[Event]:
        """Ends the turn. Nothing that follows is read."""
        self.ended = True
        closing = [event for call in self._open.values() for event in call.abandon()]
        return [*closing, {"kind": "turn_ended", "text": string(reason) or self._finish or "cut"}]

    # --------------------------------------------------------------------------------------------------------------

    def _messages(self, messages: list[tuple[str, str]]) -> Iterator[Event]:
        for name, text in messages:
            if self.ended:
                return
            if text == "[DONE]":
                yield from self._end()
                return
            message = json.loads(text)
            yield from self._piece(name, message) if self._streamed else self._whole(message)

    def _guarded(self, events: Iterator[Event]) -> list[Event]:
        read: list[Event] = []
        try:
            read.extend(events)
        except (ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError):
            # Whatever shape the stranger's JSON has: what was read stays read, and the rest is not looked at.
            self.malformed += 1
            self._dead = True
        return read


class Call:
    """One tool call as it streams. Every method returns the events it makes.

    Arguments come as pieces of a JSON text (``arguments``), as text that is the code itself (``raw``), or at once as the
    object they stand for (``given``).
    """

    def __init__(self, identity: str) -> None:
        self.id = identity
        self._started = False
        self._over = False
        self._arguments = CodeArguments()
        self._digest = hashlib.sha256()
        self._raw: Surrogates | None = None

    def start(self, name: object) -> Iterator[Event]:
        """The call begins; only the first time counts."""
        if not self._started:
            self._started = True
            self._arguments = CodeArguments(code_keys(string(name)))
            yield {"kind": "tool_call_started", "call": self.id, "name": string(name)}

    def arguments(self, text: str) -> Iterator[Event]:
        if self._over:
            return
        for what, piece in self._arguments.feed(text):
            if what == "code":
                yield self._code(piece)
            else:
                yield self._done()

    def raw(self, text: str) -> Iterator[Event]:
        if self._over:
            return
        self._raw = self._raw or Surrogates()
        piece = self._raw.feed(text)
        if piece:
            yield self._code(piece)

    def given(self, arguments: object) -> Iterator[Event]:
        yield from self.arguments(json.dumps(arguments))

    def close(self) -> Iterator[Event]:
        """All of it has come: raw text ends here (code in JSON ended with its string)."""
        if self._over:
            return
        self._over = True
        if self._raw is not None:
            rest = self._raw.close()
            if rest:
                yield self._code(rest)
            yield self._done()

    def abandon(self) -> Iterator[Event]:
        """The answer is over, and the call was not: its code is not complete, and is not reported as done."""
        self._over = True
        return iter(())

    def _code(self, text: str) -> Event:
        self._digest.update(text.encode())
        return {"kind": "code", "call": self.id, "text": text}

    def _done(self) -> Event:
        digest = self._digest.hexdigest()
        self._digest = hashlib.sha256()
        return {"kind": "code_done", "call": self.id, "digest": digest}


class _TextMark:
    """``turn.mark_of`` a text that comes in pieces. Whitespace is held back until something follows it."""

    _HELD_LIMIT = 65_536

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._held: list[str] = []
        self._held_length = 0
        self._any = False

    def add(self, text: str) -> None:
        if not self._any:
            text = text.lstrip()
            if not text:
                return
            self._any = True
        kept = text.rstrip()
        if kept:
            self._hash.update("".join(self._held).encode("utf-8", "replace"))
            self._held.clear()
            self._held_length = 0
            self._hash.update(kept.encode("utf-8", "replace"))
        if len(kept) < len(text) and self._held_length < self._HELD_LIMIT:
            self._held.append(text[len(kept) :])
            self._held_length += len(text) - len(kept)

    def hex(self) -> str:
        return self._hash.hexdigest() if self._any else ""


# ------------------------------------------------------------------------------------------- bytes into messages


class _SSE:
    def __init__(self, limit: int) -> None:
        self._reader = SSEReader(limit)

    @property
    def oversized(self) -> int:
        return self._reader.oversized

    def feed(self, data: bytes) -> list[tuple[str, str]]:
        return [(event.event, event.data) for event in self._reader.feed(data)]

    def close(self) -> list[tuple[str, str]]:
        return [(event.event, event.data) for event in self._reader.close()]


class _Lines:
    """A JSON object a line (NDJSON)."""

    def __init__(self, limit: int) -> None:
        self.oversized = 0
        self._limit = limit
        self._line: list[bytes] = []
        self._bytes = 0

    def feed(self, data: bytes) -> list[tuple[str, str]]:
        messages = []
        first, *others = data.split(b"\n")
        self._add(first)
        for piece in others:
            messages += self._end()
            self._add(piece)
        return messages

    def close(self) -> list[tuple[str, str]]:
        return self._end()

    def _add(self, piece: bytes) -> None:
        self._bytes += len(piece)
        if self._bytes <= self._limit:
            self._line.append(piece)
        else:
            self._line.clear()

    def _end(self) -> list[tuple[str, str]]:
        line = b"".join(self._line).strip()
        self.oversized += self._bytes > self._limit
        self._line.clear()
        self._bytes = 0
        return [("", line.decode("utf-8", "replace"))] if line else []


class _Array:
    """The objects of a JSON array, each as soon as it is whole; or the one object that comes in the array's place."""

    _IN_STRING = re.compile(rb'["\\]')
    _IN_OBJECT = re.compile(rb'["{}\[\]]')
    _BETWEEN = re.compile(rb"[^\s,\[\]]")

    def __init__(self, limit: int) -> None:
        self.oversized = 0
        self._limit = limit
        self._object = bytearray()
        self._bytes = 0  # length of the object that has not ended yet, kept or not
        self._depth = 0
        self._in_string = False
        self._escaped = False  # the last byte was a backslash in a string

    def feed(self, data: bytes) -> list[tuple[str, str]]:
        messages: list[tuple[str, str]] = []
        begin = at = 0
        while at < len(data):
            if self._escaped:
                self._escaped = False
                at += 1
                continue
            found = self._next(data, at)
            if found is None:
                break
            at = found.end()
            if not self._depth:
                begin = found.start()
            self._step(found.group())
            if not self._depth:  # whole; or no object at all, which then cannot be read
                self._add(data[begin:at])
                messages += self.close()
        if self._depth:
            self._add(data[begin:])
        return messages

    def close(self) -> list[tuple[str, str]]:
        text = bytes(self._object)
        self.oversized += self._bytes > self._limit
        self._object.clear()
        self._bytes = 0
        return [("", text.decode("utf-8", "replace"))] if text else []

    def _next(self, data: bytes, at: int) -> re.Match[bytes] | None:
        """The next byte that matters where we are."""
        if not self._depth:
            return self._BETWEEN.search(data, at)
        return (self._IN_STRING if self._in_string else self._IN_OBJECT).search(data, at)

    def _step(self, character: bytes) -> None:
        if self._in_string:
            self._escaped = character == b"\\"
            self._in_string = self._escaped
        elif character == b'"':
            self._in_string = self._depth > 0
        elif character in b"{[":
            self._depth += 1
        elif character in b"}]":
            self._depth = max(0, self._depth - 1)

    def _add(self, piece: bytes) -> None:
        self._bytes += len(piece)
        if self._bytes <= self._limit:
            self._object += piece
        else:
            self._object.clear()


class _Document:
    """One JSON document, read when it is whole."""

    def __init__(self, limit: int) -> None:
        self.oversized = 0
        self._limit = limit
        self._body = bytearray()

    def feed(self, data: bytes) -> list[tuple[str, str]]:
        if not self.oversized:
            self._body += data
            if len(self._body) > self._limit:
                self.oversized = 1
                self._body.clear()
        return []

    def close(self) -> list[tuple[str, str]]:
        body = bytes(self._body).strip()
        self._body.clear()
        return [("", body.decode("utf-8", "replace"))] if body else []


_SPLITTERS: dict[Framing, Callable[[int], _SSE | _Lines | _Array | _Document]] = {
    "sse": _SSE,
    "lines": _Lines,
    "array": _Array,
    "document": _Document,
    "messages": _Lines,
}
