"""Counts how often each rule of ``data/concepts.toml`` is right, and writes ``data/probabilities.toml``.

    python -m ephemeral_predictor.estimate TRAINING.jsonl[.gz]

Rows have ``messages``, ``packages``, ``source`` and ``license``; only rows whose licence permits a shipped table are
used. Left out besides are collections in which the answer follows from the collection and not from the words: API
documentation of model hubs, and templates that all use one framework.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from ephemeral import names
from ephemeral_predictor.learned import DATA, load
from ephemeral_predictor.tasks import covered, rows

LICENCES = frozenset(("MIT", "Apache-2.0"))
LEFT_OUT = frozenset(("ShishirPatil/gorilla", "basetenlabs/truss-examples"))
_PRIOR_ROWS = 4


def estimate(path: Path) -> str:
    """The text of ``probabilities.toml``."""
    rules = load(priors_only=True)
    matched: Counter[str] = Counter()
    right: Counter[tuple[str, str]] = Counter()
    total = 0
    for row in rows(path):
        if row["license"] not in LICENCES or row["source"] in LEFT_OUT:
            continue
        total += 1
        text = "\n".join(message["content"] for message in row["messages"] if message["role"] != "assistant").lower()
        needed = covered({names.equivalent(package) for package in row["packages"]})
        for rule in rules:
            if rule.pattern.search(text):
                matched[rule.name] += 1
                right.update((rule.name, package) for package in rule.packages if package in needed)
    lines = [
        f"# Written by `python -m ephemeral_predictor.estimate` from {total} tasks; do not edit. Rule, then package = probability.",
        f"# (times right + {_PRIOR_ROWS} x prior) / (times matched + {_PRIOR_ROWS}); right: the solution imports the package or what brings it.",
    ]
    for rule in rules:
        lines += ["", f'["{rule.name}"] # matched {matched[rule.name]} times']
        for package, prior in rule.packages.items():
            counted = (right[rule.name, package] + _PRIOR_ROWS * prior) / (matched[rule.name] + _PRIOR_ROWS)
            lines.append(f"{package} = {counted:.2f}")
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or not Path(arguments[0]).is_file():
        sys.stderr.write(f"{(__doc__ or '').strip()}\n")
        return 2
    (DATA / "probabilities.toml").write_text(estimate(Path(arguments[0])))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
