"""What the rules make of a text, before the trained model has its say: packages named, concepts met, whether code is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from ephemeral_predictor import learned, needs, seen
from ephemeral_predictor.evidence import Evidence


@dataclass(frozen=True)
class Signals:
    """``mentioned`` and ``concepts``: package -> the rules' own evidence. ``directed``: said to be used. ``rejected``: said not to be. ``replaced``: do the
    same work as one that is named. ``chat``: begins as what asks for words. ``asks``: probability that the answer is Python code that runs, by the words alone."""

    mentioned: dict[str, Evidence]
    concepts: dict[str, Evidence]
    directed: frozenset[str]
    rejected: frozenset[str]
    replaced: frozenset[str]
    asks: float
    standard_library: bool
    question: bool
    chat: bool
    other_language: bool


_HEAD, _TAIL = 4000, 2000  # characters of a long text that are looked at
_END = 200  # characters: where a question ends


def read(text: str) -> Signals:
    said = seen.mentions(text)
    mentioned = {evidence.package: evidence for evidence in said.found}
    asked = needs.read(text, bool(mentioned))
    replaced = seen.others_of(set(mentioned)) - mentioned.keys()
    concepts = {e.package: e for e in learned.concepts(text) if e.package not in replaced and e.package not in said.rejected}
    return Signals(
        mentioned=mentioned, concepts=concepts, directed=said.directed, rejected=said.rejected, replaced=frozenset(replaced), asks=asked.probability,
        standard_library=needs.wants_standard_library_only(text), question="?" in text[-_END:] or "？" in text[-_END:],
        chat=asked.chat, other_language=asked.other_language,
    )  # fmt: skip


def excerpt(text: str) -> str:
    """The beginning and the end of a long text: what is asked for stands in one of them."""
    return text if len(text) <= _HEAD + _TAIL else f"{text[:_HEAD]}\n{text[-_TAIL:]}"
