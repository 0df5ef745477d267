"""OpenAI's Chat Completions, as everybody speaks it: a request into a turn, its answer into events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ephemeral.streams.answer import AnswerReader, Call
from ephemeral.streams.turn import Event, Message, Turn, joined, mark_of, objects, string


def turn(body: dict[str, Any]) -> Turn:
    """What a request says."""
    return Turn(string(body.get("model")), tuple(_tools(body)), tuple(_messages(body)))


def _tools(body: dict[str, Any]) -> Iterator[str]:
    for tool in objects(body.get("tools")) + objects(body.get("functions")):
        described = tool.get("function") or tool.get("custom") or tool
        name = string(described.get("name")) if isinstance(described, dict) else ""
        if name:
            yield name


def _messages(body: dict[str, Any]) -> Iterator[Message]:
    for message in objects(body.get("messages")):
        role = message.get("role")
        content = message.get("content")
        if role == "user":
            yield Message("user", text_of(content))
        elif role in ("system", "developer"):
            yield Message("system", text_of(content))
        elif role in ("tool", "function"):
            call = string(message.get("tool_call_id")) or string(message.get("name"))
            yield Message("tool", text_of(content), call)
        elif role == "assistant":
            yield Message("assistant", marks=tuple(_marks(message)))


def text_of(content: object) -> str:
    """The text of a message's ``content``: a string, or a list of parts, of which files count by their name."""
    if isinstance(content, str):
        return string(content)
    pieces = []
    for part in objects(content):
        file = part.get("file")
        if isinstance(part.get("text"), str):
            pieces.append(part["text"])
        elif isinstance(file, dict) and isinstance(file.get("filename"), str):
            pieces.append(file["filename"])
    return joined(pieces)


def _marks(message: dict[str, Any]) -> Iterator[str]:
    for call in objects(message.get("tool_calls")):
        if isinstance(call.get("id"), str):
            yield call["id"]
    content = message.get("content")
    text = content if isinstance(content, str) else "".join(string(part.get("text")) for part in objects(content))
    if text.strip():
        yield mark_of(text)


class Answer(AnswerReader):
    """``streamed``: as server-sent events; else as one document."""

    def __init__(self, streamed: bool) -> None:
        super().__init__("sse" if streamed else "document")
        self._of_choice: dict[tuple[int, object], tuple[object, ...]] = {}  # where a call's pieces go -> its key
        self._last: dict[int, Call] = {}

    def _piece(self, name: str, message: dict[str, Any]) -> Iterator[Event]:
        self._identify(message.get("id"))
        for choice in message.get("choices") or ():
            yield from self._choice(choice, choice.get("delta") or {})

    def _whole(self, answer: dict[str, Any]) -> Iterator[Event]:
        self._identify(answer.get("id"))
        for choice in answer.get("choices") or ():
            yield from self._choice(choice, choice.get("message") or {})

    def _choice(self, choice: Event, delta: Event) -> Iterator[Event]:
        number = choice.get("index") or 0
        if number == 0:  # alternative answers would only garble the first one's text
            yield from self._say("reasoning_text", delta.get("reasoning") or delta.get("reasoning_content"))
            yield from self._say("assistant_text", delta.get("content"))
        for position, piece in enumerate(delta.get("tool_calls") or ()):
            index = piece.get("index")
            if index is None and not self._streamed:
                index = position
            call = self._call_of(number, index, string(piece.get("id")))
            if call is not None:
                yield from _read(call, piece.get("function") or piece.get("custom") or {})
        legacy = delta.get("function_call")
        if legacy:
            call = self._call_of(number, "function_call", "")
            if call is not None:
                yield from _read(call, legacy)
        reason = choice.get("finish_reason")
        if reason:
            if number == 0:
                self._finish = string(reason)
            for key in [key for key in self._open if isinstance(key, tuple) and key[0] == number]:
                yield from self._open[key].close()

    def _call_of(self, choice: int, index: object, identity: str) -> Call | None:
        """The call that a piece belongs to. Some providers send no index, or the same one for all calls: then a new id
        begins a new call."""
        place = (choice, index)
        if index is None and not identity:
            call = self._last.get(choice)
        else:
            known = self._of_choice.get(place)
            call = self._open.get(known) if known else None
        if call is None or (identity and identity != call.id):
            key = self._of_choice[place] = (choice, index, identity, len(self.calls))
            call = self._call(key, identity)
        if call is not None:
            self._last[choice] = call
        return call


def _read(call: Call, piece: Event) -> Iterator[Event]:
    """A delta of ``function`` (``name``, ``arguments``) or of ``custom`` (``name``, ``input``: the code itself)."""
    yield from call.start(piece.get("name"))
    arguments = piece.get("arguments")
    if isinstance(arguments, dict):  # some local servers answer with an object where a string belongs
        arguments = json.dumps(arguments)
    if isinstance(arguments, str):
        yield from call.arguments(arguments)
    elif isinstance(piece.get("input"), str):
        yield from call.raw(piece["input"])
