"""What the fake providers say, whoever speaks for them: a few words, and then, where a tool was offered, a call of it.

Nothing is random: ids, token counts and words follow from the request alone, so that two runs can be compared byte for byte.
A client steers the answer as it would a real provider's, by the parameters of the API, and by words in the model's name:
``fake-429`` answers with that status, ``fake-br`` with that content coding, and ``fake-zstd-shreds`` does two things at once.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

CODE = "import pandas as pd\nfrom sklearn.linear_model import LinearRegression\nprint('héllo 🐍')\n"
TOOL = "execute_code"
TEXT = "Let me compute that – gleich. "
REASONING = "The user wants a regression. "
CREATED = 1_790_000_000
"""Every answer's creation, in Unix seconds."""
CODINGS = ("zstd", "br", "gzip", "deflate")
"""Content codings that a model's name can ask for; also the order of the server's preference."""

Body = dict[str, Any]


@dataclass(frozen=True)
class Behaviour:
    """What the words of a model's name ask for. ``middle`` happens after the text and before the tool call: ``cut`` drops the
    connection, ``slow`` waits until the client is gone, ``error`` sends the protocol's error event and ends the stream."""

    status: int = 200
    coding: str = ""
    middle: str = ""
    shreds: bool = False
    """Send seven bytes at a time, whatever they are part of."""

    @classmethod
    def of(cls, model: object) -> Behaviour:
        words = model.split("-") if isinstance(model, str) else []
        return cls(
            status=next((int(word) for word in words if re.fullmatch(r"[45]\d\d", word)), 200),
            coding=next((word for word in words if word in (*CODINGS, "identity")), ""),
            middle=next((word for word in words if word in ("cut", "slow", "error")), ""),
            shreds="shreds" in words,
        )


@dataclass(frozen=True)
class Answer:
    """One answer, before any protocol. ``mark`` tells it from others: 16 hex digits of the request it answers."""

    mark: str
    text: str
    reasoning: str = ""
    tool: str = ""
    """Name of the tool to call; empty for none."""

    @classmethod
    def to(cls, body: Body, tools: list[str], result: str | None, reasons: bool = False) -> Answer:
        """``tools`` are the names on offer, ``result`` what a tool answered last, None when no tool ran since the user spoke."""
        mark = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]
        reasoning = REASONING if reasons else ""
        if result is not None:
            return cls(mark, f"The tool said {result}, and that is all. ", reasoning)
        name = TOOL if TOOL in tools else (tools or [""])[0]
        return cls(mark, TEXT, reasoning, name)

    @property
    def words(self) -> list[str]:
        return re.findall(r"\S+\s*", self.text)

    @property
    def thoughts(self) -> list[str]:
        return re.findall(r"\S+\s*", self.reasoning)

    @property
    def tokens(self) -> int:
        return len(self.words) + len(self.thoughts) + (len(CODE) // 4 if self.tool else 0)


def arguments(escaped: bool) -> str:
    """The tool call's arguments as JSON. Some models escape what is not ASCII, and a surrogate pair may end up in two pieces."""
    return json.dumps({"code": CODE}, ensure_ascii=escaped)


def pieces(text: str, length: int = 5) -> Iterator[str]:
    return (text[start : start + length] for start in range(0, len(text), length))


def objects(value: object) -> list[Body]:
    """The JSON objects in what should be a list of them."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def plain(content: object) -> str:
    """The text of a message's content: a string, or parts with ``text``."""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in objects(content))
