"""Anthropic's Messages: a request into a turn, its answer into events.

Google's Vertex AI and, for answers in one document, Amazon's Bedrock carry the same bodies with the model in the path. (What
Bedrock streams is ``application/vnd.amazon.eventstream``, a binary framing that is not read.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from ephemeral.streams.answer import AnswerReader
from ephemeral.streams.turn import Event, Message, Turn, joined, mark_of, objects, string

_MODEL_IN_PATH = re.compile(r".*/models/([^/:]+):\w+|.*/model/([^/]+)/invoke")

_BILLING = "x-anthropic-billing-header:"
"""How Claude Code's first system block begins: no word to the model, and different in every request."""

_FINISHES = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
"""Chat Completions' words for why an answer ended."""


def turn(body: dict[str, Any], path: str = "") -> Turn:
    """What a request says."""
    tools = tuple(name for tool in objects(body.get("tools")) if (name := string(tool.get("name"))))
    return Turn(string(body.get("model")) or _model_of(path), tools, tuple(_messages(body)))


def _model_of(path: str) -> str:
    found = _MODEL_IN_PATH.fullmatch(path.partition("?")[0])
    return string(unquote(found[1] or found[2])) if found else ""


def _messages(body: dict[str, Any]) -> Iterator[Message]:
    system = body.get("system")
    if isinstance(system, list):
        system = [block for block in objects(system) if not string(block.get("text")).startswith(_BILLING)]
    if text := text_of(system):
        yield Message("system", text)
    for message in objects(body.get("messages")):
        role = message.get("role")
        content = message.get("content")
        if role == "assistant":
            yield Message("assistant", marks=tuple(_marks(content)))
        elif role == "system":
            yield Message("system", text_of(content))
        elif role == "user":
            yield from _user(content)


def _user(content: object) -> Iterator[Message]:
    """The tools' results, and what the user says beside them."""
    results = [block for block in objects(content) if block.get("type") == "tool_result"]
    for result in results:
        yield Message("tool", text_of(result.get("content")), string(result.get("tool_use_id")))
    text = text_of(content)
    if text or not results:
        yield Message("user", text)


def text_of(content: object) -> str:
    """The text of a ``content``: a string, or a list of blocks, of which documents count by their title."""
    if isinstance(content, str):
        return string(content)
    return joined(
        string(block.get("text")) or string(block.get("title")) or string(block.get("filename"))
        for block in objects(content)
    )


def _marks(content: object) -> Iterator[str]:
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    blocks = objects(content)
    for block in blocks:
        if string(block.get("type")).endswith("tool_use") and string(block.get("id")):
            yield string(block["id"])
    text = "".join(string(block.get("text")) for block in blocks if block.get("type") == "text")
    if text.strip():
        yield mark_of(text)


class Answer(AnswerReader):
    """``streamed``: as server-sent events; else as one document."""

    def __init__(self, streamed: bool) -> None:
        super().__init__("sse" if streamed else "document")

    def _piece(self, name: str, message: dict[str, Any]) -> Iterator[Event]:
        index = message.get("index")
        match message.get("type") or name:
            case "message_start":
                self._identify(message["message"].get("id"))
            case "content_block_start":
                yield from self._block(index, message["content_block"])
            case "content_block_delta":
                yield from self._delta(index, message["delta"])
            case "content_block_stop":
                if call := self._open.get(index):
                    yield from call.close()
            case "message_delta":
                self._stopped(message["delta"].get("stop_reason"))
            case "message_stop":
                yield from self._end()
            case "error":
                yield from self._end("error")

    def _whole(self, answer: dict[str, Any]) -> Iterator[Event]:
        self._identify(answer.get("id"))
        for index, block in enumerate(answer.get("content") or ()):
            yield from self._block(index, block)
        self._stopped("error" if answer.get("type") == "error" else answer.get("stop_reason"))

    def _block(self, index: object, block: dict[str, Any]) -> Iterator[Event]:
        """A block begins, or is whole. Its kind may be of a tool that the provider runs itself: those end the same way."""
        kind = string(block.get("type"))
        if kind == "text":
            yield from self._say("assistant_text", block.get("text"))
        elif kind == "thinking":
            yield from self._say("reasoning_text", block.get("thinking"))
        elif kind.endswith("tool_use"):
            call = self._call(index, block.get("id"))
            if call is not None:
                yield from call.start(block.get("name"))
                if block.get("input"):  # whole from the start; else empty, and deltas follow
                    yield from call.given(block["input"])
                    yield from call.close()

    def _delta(self, index: object, delta: dict[str, Any]) -> Iterator[Event]:
        match delta.get("type"):
            case "text_delta":
                yield from self._say("assistant_text", delta.get("text"))
            case "thinking_delta":
                yield from self._say("reasoning_text", delta.get("thinking"))
            case "input_json_delta":
                if call := self._open.get(index):
                    yield from call.arguments(delta.get("partial_json") or "")

    def _stopped(self, reason: object) -> None:
        if said := string(reason):
            self._finish = _FINISHES.get(said, said)
