"""Recorded tasks: one JSON object a line."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from ephemeral_cli.errors import CommandError


class Task(BaseModel):
    """One recorded conversation.

    ``messages`` is what is said before the answer. The answer: ``prose``, then a call of ``execute_code`` with ``code``;
    after the tool's result ``final``. Without ``code`` it is ``final`` alone. ``packages`` is what the code needs
    (documentation: what it really imports is measured). ``expect`` is text that the output must hold. ``wrapped``: this
    conversation's client reports through ``ephemeral.wrap`` and goes past the proxy. ``streamed`` false: it asks for its
    answers whole, so that nothing of the code is seen before all of it.
    """

    id: str
    messages: list[dict[str, Any]] = Field(min_length=1)
    code: str | None = None
    packages: list[str] = []
    prose: str = ""
    final: str = "Done."
    expect: str = ""
    wrapped: bool = False
    streamed: bool = True

    @property
    def opening(self) -> str:
        """The first user message, by which the replaying provider knows the conversation."""
        return opening(self.messages)


def opening(messages: list[dict[str, Any]]) -> str:
    """Text of the first user message in ``messages``; empty when there is none."""
    for message in messages:
        if isinstance(message, dict) and message.get("role") == "user":
            content = message.get("content")
            if isinstance(content, list):
                return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
            return str(content or "")
    return ""


def load(file: Path, limit: int = 0, seed: int = 0) -> list[Task]:
    """The tasks of ``file`` (gzipped when it ends in ``.gz``); with ``limit`` so many of them, drawn with ``seed``.

    Raises CommandError naming the file and line of what cannot be read.
    """
    tasks: list[Task] = []
    try:
        with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    tasks.append(_task(file, number, line))
    except (OSError, EOFError, UnicodeDecodeError) as problem:
        raise CommandError(f"{file} cannot be read: {getattr(problem, 'strerror', None) or problem}", "give a .jsonl or .jsonl.gz file", 2) from None
    if not tasks:
        raise CommandError(f"{file} holds no task", "one JSON object a line: id, messages, code, packages", 2)
    if 0 < limit < len(tasks):
        tasks = random.Random(seed).sample(tasks, limit)
    return tasks


def _task(file: Path, number: int, line: str) -> Task:
    try:
        return Task.model_validate(json.loads(line))
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CommandError(f"{file}, line {number}: {where}: {first['msg']}", "one JSON object a line: id, messages, code, packages", 2) from None
    except ValueError as problem:
        raise CommandError(f"{file}, line {number} is no JSON: {problem}", "one JSON object a line: id, messages, code, packages", 2) from None
