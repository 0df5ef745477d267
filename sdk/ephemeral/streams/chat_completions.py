"""OpenAI's Chat Completions: a request and its answer, streamed or not, into events.

``RequestReader`` turns a request's body into the events of its turn, leaving out what the session has said before.
``AnswerReader`` turns the answer's plain bytes into events as they come.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import Any

from ephemeral.streams.json_string import CodeArguments, Surrogates
from ephemeral.streams.sse import SSEReader

Event = dict[str, Any]

_MESSAGES_PER_SESSION = 4096
_CALLS_PER_ANSWER = 256


# ------------------------------------------------------------------------------------------------------- request


class RequestReader:
    """Remembers, for the last ``sessions`` sessions, which messages and tools were reported, by hash only."""

    def __init__(self, sessions: int = 1024) -> None:
        self._limit = sessions
        self._reported: OrderedDict[str, Counter[int]] = OrderedDict()

    def read(self, session: str, body: dict[str, Any]) -> list[Event]:
        """``turn_started``, then the tools and the user's, system's and tools' messages that are new in ``session``.

        A message that says the same as an earlier one is new again when the history holds it more often than before.
        """
        model = body.get("model")
        events: list[Event] = [{"kind": "turn_started", "model": model if isinstance(model, str) else ""}]
        reported = self._reported.pop(session, Counter())
        here: Counter[int] = Counter()
        for event in (*_tools(body), *_messages(body)):
            mark = hash((event["kind"], event.get("name"), event.get("call"), event.get("text")))
            here[mark] += 1
            if here[mark] > reported[mark]:
                events.append(event)
        merged = here | reported
        self._reported[session] = merged if len(merged) <= _MESSAGES_PER_SESSION else here
        while len(self._reported) > self._limit:
            self._reported.popitem(last=False)
        return events


def _tools(body: dict[str, Any]) -> Iterator[Event]:
    for tool in _list(body.get("tools")) + _list(body.get("functions")):
        described = tool.get("function") or tool.get("custom") or tool
        name = described.get("name") if isinstance(described, dict) else None
        if isinstance(name, str) and name:
            yield {"kind": "tool_declared", "name": name}


def _messages(body: dict[str, Any]) -> Iterator[Event]:
    for message in _list(body.get("messages")):
        role = message.get("role")
        if role in ("user", "system", "developer"):
            text = text_of(message.get("content"))
            if text:
                yield {"kind": "user_turn", "text": text}
        elif role in ("tool", "function"):
            yield {
                "kind": "tool_result",
                "call": _string(message.get("tool_call_id")) or _string(message.get("name")),
                "text": text_of(message.get("content")),
            }


def text_of(content: object) -> str:
    """The text of a message's ``content``: a string, or a list of parts, of which files count by their name."""
    if isinstance(content, str):
        return _encodable(content)
    pieces: list[str] = []
    for part in _list(content):
        file = part.get("file")
        if isinstance(part.get("text"), str):
            pieces.append(part["text"])
        elif isinstance(file, dict) and isinstance(file.get("filename"), str):
            pieces.append(file["filename"])
    return _encodable("\n".join(pieces))


def _list(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _string(value: object) -> str:
    return _encodable(value) if isinstance(value, str) else ""


def _encodable(text: str) -> str:
    halves = Surrogates()
    return halves.feed(text) + halves.close()


# -------------------------------------------------------------------------------------------------------- answer


class AnswerReader:
    """Reads one answer. ``streamed`` says that it is ``text/event-stream``; otherwise it is one JSON document.

    ``calls`` and ``text`` (the answer's tool call ids and the sha256 of its text) tell the answer apart in later
    requests. ``malformed`` counts pieces that could not be read; the first one in a stream ends its reading.
    """

    def __init__(self, streamed: bool, limit_bytes: int = 16 << 20) -> None:
        self.malformed = 0
        self.calls: list[str] = []
        self._sse = SSEReader(limit_bytes) if streamed else None
        self._whole = bytearray()
        self._limit = limit_bytes
        self._dead = False
        self._ended = False
        self._finish = ""
        self._completion = ""
        self._text = hashlib.sha256()
        self._texts = {"assistant_text": Surrogates(), "reasoning_text": Surrogates()}
        self._open: dict[tuple[int, object], _Call] = {}
        self._last: dict[int, _Call] = {}

    @property
    def text(self) -> str:
        """sha256 of the text read so far, in hex."""
        return self._text.hexdigest()

    def feed(self, data: bytes) -> list[Event]:
        """The events that the next plain bytes of the answer complete."""
        if self._dead or self._ended:
            return []
        if self._sse is None:
            self._whole += data
            if len(self._whole) > self._limit:
                self._give_up()
            return []
        return self._guarded(self._read_chunks(self._sse.feed(data)))

    def close(self, cut: bool = False) -> list[Event]:
        """The answer is over; ``cut`` says that the connection broke. Always ends in ``turn_ended``, once."""
        events: list[Event] = []
        if not self._dead and not self._ended:
            if self._sse is not None:
                events += self._guarded(self._read_chunks(self._sse.close()))
                self.malformed += self._sse.oversized
            elif not cut:
                events += self._guarded(self._read_whole())
        if not self._ended:
            self._ended = True
            events.append({"kind": "turn_ended", "text": self._finish or "cut"})
        return events

    def _guarded(self, events: Iterator[Event]) -> list[Event]:
        read: list[Event] = []
        try:
            read.extend(events)
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            # Whatever shape the stranger's JSON has: what was read stays read, and the rest is not looked at.
            self._give_up()
        return read

    def _give_up(self) -> None:
        self.malformed += 1
        self._dead = True
        self._whole.clear()

    def _read_chunks(self, messages: list[Any]) -> Iterator[Event]:
        for message in messages:
            if self._ended:
                return
            if message.data == "[DONE]":
                yield from self._end()
            else:
                chunk = json.loads(message.data)
                self._completion = chunk.get("id") or self._completion
                for choice in chunk.get("choices") or ():
                    yield from self._read_choice(choice, choice.get("delta") or {})

    def _read_whole(self) -> Iterator[Event]:
        answer = json.loads(self._whole)
        self._whole.clear()
        self._completion = answer.get("id") or ""
        for choice in answer.get("choices") or ():
            yield from self._read_choice(choice, choice.get("message") or {})

    def _read_choice(self, choice: Event, delta: Event) -> Iterator[Event]:
        number = choice.get("index") or 0
        if number == 0:  # alternative answers would only garble the first one's text
            yield from self._read_text("reasoning_text", delta.get("reasoning") or delta.get("reasoning_content"))
            yield from self._read_text("assistant_text", delta.get("content"))
        for position, piece in enumerate(delta.get("tool_calls") or ()):
            index = piece.get("index")
            if index is None and self._sse is None:
                index = position
            call = self._call(number, index, _string(piece.get("id")))
            if call is not None:
                yield from call.read(piece.get("function") or piece.get("custom") or {})
        legacy = delta.get("function_call")
        if legacy:
            call = self._call(number, "function_call", "")
            if call is not None:
                yield from call.read(legacy)
        reason = choice.get("finish_reason")
        if reason:
            if number == 0:
                self._finish = _string(reason)
            for (of, _), call in self._open.items():
                if of == number:
                    yield from call.close()

    def _read_text(self, kind: str, text: object) -> Iterator[Event]:
        if not isinstance(text, str) or not text:
            return
        text = self._texts[kind].feed(text)
        if kind == "assistant_text":
            self._text.update(text.encode())
        if text:
            yield {"kind": kind, "text": text}

    def _call(self, choice: int, index: object, identity: str) -> _Call | None:
        """The call that a piece belongs to. Some providers send no index, or the same one for all calls: then a new id
        begins a new call."""
        key = (choice, index)
        call = self._last.get(choice) if index is None and not identity else self._open.get(key)
        if call is None or (identity and identity != call.id):
            if len(self.calls) >= _CALLS_PER_ANSWER:
                return None
            call = _Call(identity or f"{_string(self._completion) or 'call'}:{choice}:{len(self.calls)}")
            self._open[key] = call
            self.calls.append(call.id)
        self._last[choice] = call
        return call

    def _end(self) -> Iterator[Event]:
        self._ended = True
        yield {"kind": "turn_ended", "text": self._finish or "cut"}


class _Call:
    """One tool call as it streams."""

    def __init__(self, identity: str) -> None:
        self.id = identity
        self._started = False
        self._arguments = CodeArguments()
        self._digest = hashlib.sha256()
        self._raw: Surrogates | None = None  # set for a custom tool: its input is the code, not JSON around it

    def read(self, piece: Event) -> Iterator[Event]:
        """A delta of ``function`` (``name``, ``arguments``) or of ``custom`` (``name``, ``input``)."""
        if not self._started:
            self._started = True
            yield {"kind": "tool_call_started", "call": self.id, "name": _string(piece.get("name"))}
        arguments = piece.get("arguments")
        if isinstance(arguments, dict):  # some local servers answer with an object where a string belongs
            arguments = json.dumps(arguments)
        if isinstance(arguments, str):
            for what, text in self._arguments.feed(arguments):
                yield self._code(text) if what == "code" else self._done()
        elif isinstance(piece.get("input"), str):
            self._raw = self._raw or Surrogates()
            text = self._raw.feed(piece["input"])
            if text:
                yield self._code(text)

    def close(self) -> Iterator[Event]:
        """The answer's finish reason has come: raw input ends with it."""
        if self._raw is not None:
            rest = self._raw.close()
            self._raw = None
            if rest:
                yield self._code(rest)
            yield self._done()

    def _code(self, text: str) -> Event:
        self._digest.update(text.encode())
        return {"kind": "code", "call": self.id, "text": text}

    def _done(self) -> Event:
        digest = self._digest.hexdigest()
        self._digest = hashlib.sha256()
        return {"kind": "code_done", "call": self.id, "digest": digest}
