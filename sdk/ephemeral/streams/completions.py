"""OpenAI's legacy completions, which local servers still speak: a prompt into a turn, the text after it into events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ephemeral.streams.answer import AnswerReader
from ephemeral.streams.turn import Event, Message, Turn, joined, string


def turn(body: dict[str, Any]) -> Turn:
    """What a request says. Prompts that are numbers of tokens cannot be read."""
    prompt = body.get("prompt")
    text = joined(string(item) for item in (prompt if isinstance(prompt, list) else [prompt]))
    return Turn(string(body.get("model")), messages=(Message("user", text),))


class Answer(AnswerReader):
    """``streamed``: as server-sent events; else as one document. Both have the same shape."""

    def __init__(self, streamed: bool) -> None:
        super().__init__("sse" if streamed else "document")

    def _piece(self, name: str, message: dict[str, Any]) -> Iterator[Event]:
        self._identify(message.get("id"))
        for choice in message.get("choices") or ():
            if choice.get("index"):
                continue  # alternative answers, and those to other prompts, would only garble the first one's text
            yield from self._say("assistant_text", choice.get("text"))
            self._finish = string(choice.get("finish_reason")) or self._finish

    def _whole(self, answer: dict[str, Any]) -> Iterator[Event]:
        yield from self._piece("", answer)
