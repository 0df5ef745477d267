"""The protocols that are read, told by a request's method and path: whoever the provider is."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ephemeral.streams import anthropic, chat_completions, completions, gemini, ollama, responses
from ephemeral.streams.answer import AnswerReader
from ephemeral.streams.turn import Turn


@dataclass(frozen=True)
class Api:
    """One protocol. ``turn`` reads a request's body (with its path, where that says something); ``answer`` makes the reader of
    its answer, ``kind`` being the answer's Content-Type. ``path`` matches the whole path, without query."""

    name: str
    path: re.Pattern[str]
    turn: Callable[[dict[str, Any], str], Turn]
    answer: Callable[[str], AnswerReader]


def _streamed(kind: str) -> bool:
    return kind.startswith("text/event-stream")


APIS: tuple[Api, ...] = (
    Api(
        "chat completions",
        re.compile(r".*/chat/completions/?"),
        lambda body, path: chat_completions.turn(body),
        lambda kind: chat_completions.Answer(_streamed(kind)),
    ),
    Api(
        "responses",
        re.compile(r".*/responses/?"),
        responses.turn,
        lambda kind: responses.Answer(_streamed(kind)),
    ),
    Api(
        "completions",
        re.compile(r".*(?<!/chat)/completions/?"),
        lambda body, path: completions.turn(body),
        lambda kind: completions.Answer(_streamed(kind)),
    ),
    Api(
        "anthropic messages",  # Anthropic itself, then Vertex AI, then Bedrock
        re.compile(
            r".*/v1/messages/?"
            r"|.*/publishers/anthropic/models/(?!count-tokens:)[^/]+:(?:streamR|r)awPredict"
            r"|.*/model/[^/]*anthropic[^/]*/invoke"
        ),
        anthropic.turn,
        lambda kind: anthropic.Answer(_streamed(kind)),
    ),
    Api(
        "gemini",
        re.compile(r".*/(?:models|tunedModels|endpoints)/[^/:]+:(?:streamG|g)enerateContent"),
        gemini.turn,
        lambda kind: gemini.Answer(_streamed(kind)),
    ),
    Api(
        "ollama",
        re.compile(r".*/api/(?:chat|generate)/?"),
        lambda body, path: ollama.turn(body),
        lambda kind: ollama.Answer(not kind.startswith("application/json")),
    ),
)


def find(method: str, path: str) -> Api | None:
    """The protocol of a request, or None for one that is no part of a conversation."""
    if method.upper() != "POST":
        return None
    path = path.partition("?")[0]
    return next((api for api in APIS if api.path.fullmatch(path)), None)
