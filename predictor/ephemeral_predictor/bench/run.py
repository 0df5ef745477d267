"""Files in, the result out."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ephemeral.bench import machine
from ephemeral_predictor.bench import records
from ephemeral_predictor.bench.conversation import FRACTIONS, Conversation, Step, predict
from ephemeral_predictor.bench.figures import DEFINITIONS, Tally, macro
from ephemeral_predictor.bench.reasoned import AT_ONCE, Reasoner
from ephemeral_predictor.reasoned.service import K2

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Choices:
    """``limit``: at most so many records of a file, drawn with ``seed``; 0: all. ``k2`` None: K2 is not asked."""

    files: Sequence[Path]
    limit: int = 0
    seed: int = 0
    k2: K2 | None = None


@dataclass
class _Ladder:
    """The tallies of the combined prediction (None) and of each step alone: before code, and at each fraction of it."""

    steps: Sequence[Step | None]
    prompt: dict[Step | None, Tally] = field(default_factory=dict)
    code: dict[tuple[Step | None, float], Tally] = field(default_factory=dict)

    def add(self, record: records.Record, conversation: Conversation, milliseconds: list[float], fraction: float | None = None) -> None:
        for step in self.steps:
            tally = self.prompt.setdefault(step, Tally()) if fraction is None else self.code.setdefault((step, fraction), Tally())
            tally.add(record.needed, conversation.prediction(step), [] if step else milliseconds)

    def figures(self, step: Step | None) -> dict[str, Any]:
        found: dict[str, Any] = {"prompt_only": self.prompt[step].figures()}
        if self.code:
            found["with_code"] = {str(fraction): self.code[step, fraction].figures() for fraction in FRACTIONS}
        return found


def measure(choices: Choices, progress: Progress) -> dict[str, Any]:
    """The result for one file, or ``files``, ``macro`` and ``pooled`` for several. Raises records.Unreadable for a file that holds no record."""
    facts = machine()
    predict([{"role": "user", "content": "plot numbers.csv"}])  # the tables are read now, as the live predictor does
    read = [records.read(path) for path in choices.files]
    if choices.limit:
        for one in read:
            one.found = random.Random(choices.seed).sample(one.found, min(choices.limit, len(one.found)))
    total = sum(len(one.found) for one in read)
    done = 0
    results: dict[str, dict[str, Any]] = {}
    pooled = _Ladder((None,))
    with Reasoner(choices.k2) if choices.k2 else nullcontext() as reasoner:
        for one, name in zip(read, _names(choices.files), strict=True):
            ladder = _Ladder((None, "seen", "learned", "reasoned") if reasoner else (None, "seen", "learned"))
            for begin in range(0, len(one.found), AT_ONCE):
                batch = one.found[begin : begin + AT_ONCE]
                progress(name, done, total)
                _hold(batch, (ladder, pooled), reasoner)
                done += len(batch)
            results[name] = {
                "file": name, "records": one.summary(), "combined": ladder.figures(None),
                "steps": {str(step): ladder.figures(step) for step in ladder.steps if step},
            }
    shared: dict[str, Any] = {"machine": facts, "date": facts["date"], "definitions": DEFINITIONS}
    if reasoner:
        shared["k2"] = reasoner.counts
    if choices.limit:
        shared |= {"limit": choices.limit, "seed": choices.seed}
    if len(results) == 1:
        return {**next(iter(results.values())), **shared}
    return {"files": results, "macro": macro(results), "pooled": {"combined": pooled.figures(None)}, **shared}


def _hold(batch: Sequence[records.Record], ladders: Sequence[_Ladder], reasoner: Reasoner | None) -> None:
    conversations = [Conversation(record.messages) for record in batch]
    spent = [conversation.prompt() for conversation in conversations]
    if reasoner:
        reasoner.decide(conversations)
    for record, conversation, milliseconds in zip(batch, conversations, spent, strict=True):
        for ladder in ladders:
            ladder.add(record, conversation, [milliseconds])
        if record.code:
            for fraction, pieces in conversation.code(record.code):
                for ladder in ladders:
                    ladder.add(record, conversation, pieces, fraction)


def _names(files: Sequence[Path]) -> list[str]:
    """What each file is called in the result: its name, or its path where another has the same name."""
    names = [file.name for file in files]
    return [name if names.count(name) == 1 else str(file) for name, file in zip(names, files, strict=True)]
