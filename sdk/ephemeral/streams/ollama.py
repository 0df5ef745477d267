"""Ollama's own chat and generate: a request into a turn, its answer into events."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from ephemeral.streams.answer import AnswerReader
from ephemeral.streams.turn import Event, Message, Turn, mark_of, mark_of_call, objects, string


def turn(body: dict[str, Any]) -> Turn:
    """What a request says, to ``/api/chat`` (messages) or to ``/api/generate`` (a prompt, and the context that continues)."""
    context = body.get("context")
    return Turn(
        string(body.get("model")),
        tuple(_tools(body)),
        tuple(_messages(body)) or tuple(_prompt(body)),
        _context_id(context) if context else "",
    )


def _tools(body: dict[str, Any]) -> Iterator[str]:
    for tool in objects(body.get("tools")):
        function = tool.get("function")
        if isinstance(function, dict) and (name := string(function.get("name"))):
            yield name


def _messages(body: dict[str, Any]) -> Iterator[Message]:
    for message in objects(body.get("messages")):
        role = message.get("role")
        text = string(message.get("content"))
        if role == "assistant":
            yield Message("assistant", marks=tuple(_marks(message)))
        elif role == "tool":
            call = (
                string(message.get("tool_call_id")) or string(message.get("tool_name")) or string(message.get("name"))
            )
            yield Message("tool", text, call)
        elif role in ("user", "system"):
            yield Message(role, text)


def _prompt(body: dict[str, Any]) -> Iterator[Message]:
    if system := string(body.get("system")):
        yield Message("system", system)
    if prompt := string(body.get("prompt")):
        yield Message("user", prompt)


def _marks(message: dict[str, Any]) -> Iterator[str]:
    for call in objects(message.get("tool_calls")):
        if identity := string(call.get("id")):
            yield identity
        function = call.get("function")
        if isinstance(function, dict):
            yield _mark_of(function)
    text = string(message.get("content"))
    if text.strip():
        yield mark_of(text)


def _mark_of(function: dict[str, Any]) -> str:
    """Calls have had ids only since late 2025, and the official client still drops them from its history."""
    return mark_of_call(function.get("name"), function.get("arguments") or {})


def _context_id(context: object) -> str:
    """The context is what the answer hands out to be continued: as good as an id, only longer."""
    return "context-" + hashlib.sha256(json.dumps(context).encode()).hexdigest()[:32]


class Answer(AnswerReader):
    """``streamed``: a JSON object a line; else one document of the same shape."""

    def __init__(self, streamed: bool) -> None:
        super().__init__("lines" if streamed else "document")

    def _piece(self, name: str, message: dict[str, Any]) -> Iterator[Event]:
        if message.get("error"):
            yield from self._end("error")
            return
        said = message.get("message") or {}
        yield from self._say("reasoning_text", said.get("thinking") or message.get("thinking"))
        yield from self._say("assistant_text", said.get("content") or message.get("response"))
        for called in said.get("tool_calls") or ():
            yield from self._called(called.get("id"), called["function"])
        if message.get("done"):
            if message.get("context"):
                self._identify(_context_id(message["context"]))
            reason = string(message.get("done_reason")) or "stop"
            yield from self._end("tool_calls" if reason == "stop" and self.calls else reason)

    def _whole(self, answer: dict[str, Any]) -> Iterator[Event]:
        yield from self._piece("", answer)

    def _called(self, identity: object, function: dict[str, Any]) -> Iterator[Event]:
        call = self._call(len(self.calls), identity, _mark_of(function))
        if call is not None:
            yield from call.start(function.get("name"))
            yield from call.given(function.get("arguments") or {})
            yield from call.close()
