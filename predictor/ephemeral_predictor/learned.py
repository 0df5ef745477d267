"""Step two of the ladder, as a table: what words that name no package say about packages.

The rules are in ``data/concepts.toml``. How often each is right was counted by ``estimate`` on tasks of known solution
and stands in ``data/probabilities.toml``; a rule too rare to count keeps its prior.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ephemeral import names
from ephemeral_predictor.evidence import Evidence

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Rule:
    """``packages``: package -> probability that code is written with it, given that the rule matches. ``pattern`` is for a text in lower case: to ignore case
    while searching takes twice the time."""

    name: str
    kind: str
    pattern: re.Pattern[str]
    packages: dict[str, float]


def load(priors_only: bool = False) -> list[Rule]:
    """The rules, with the counted probabilities (or, ``priors_only``, as written by hand)."""
    rows = tomllib.loads((DATA / "concepts.toml").read_text())["rule"]
    counted = {} if priors_only else tomllib.loads((DATA / "probabilities.toml").read_text())
    return [
        Rule(
            row["name"],
            row.get("kind", "concept"),
            re.compile(rf"(?<![a-z0-9_])(?:{row['match']})(?![a-z0-9_])"),
            {names.equivalent(package): p for package, p in {**row["packages"], **(counted.get(row["name"], {}) if row.get("counted", True) else {})}.items()},
        )
        for row in rows
    ]


@cache
def _rules() -> list[Rule]:
    return load()


def concepts(text: str) -> list[Evidence]:
    """Evidence from every rule that matches ``text``: for each package, that of the surest rule."""
    surest: dict[str, Evidence] = {}
    text = text.lower()
    for rule in _rules():
        if not rule.pattern.search(text):
            continue
        for package, probability in rule.packages.items():
            if package not in surest or surest[package].probability < probability:
                surest[package] = Evidence(package, probability, "learned", rule.kind)
    return list(surest.values())
