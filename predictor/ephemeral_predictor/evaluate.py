"""How good the guesses from a conversation's text are, on tasks whose solution is known.

    python -m ephemeral_predictor.evaluate FILE.jsonl[.gz] ...

A file holds one JSON object a line with ``messages`` and ``packages`` (PyPI names that the solution imports). Printed
for each file: *hit*, the share of tasks with packages whose whole set is covered by the prediction and its dependencies;
*recall* and *precision* over packages; *mean_size* of the predictions for tasks with packages; *negatives_empty*, the
share of tasks without packages for which nothing was predicted; *n*; and milliseconds a prediction, the median.
"""

from __future__ import annotations

import gzip
import json
import statistics
import sys
import time
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ephemeral import names
from ephemeral.wire import Want
from ephemeral_predictor.learned import DATA
from ephemeral_predictor.planner import plan_for
from ephemeral_predictor.state import Belief


def predict(messages: list[dict[str, Any]]) -> list[Want]:
    """What would be planned once ``messages`` (``role``, ``content``) were said, before any code exists."""
    belief = Belief("evaluation")
    for message in messages:
        if message["role"] == "assistant":
            belief.turn_started()
            belief.assistant_text(message["content"])
            belief.turn_ended()
        else:
            belief.user_turn(message["content"])
    plan = plan_for(belief, at=0.0)
    return plan.wants if plan else []


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file, gzipped or not."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        for line in lines:
            yield json.loads(line)


@cache
def _brings() -> dict[str, set[str]]:
    data = tomllib.loads((DATA / "closure.toml").read_text())
    return {names.equivalent(package): {names.equivalent(name) for name in others} for package, others in data.items()}


def covered(packages: set[str]) -> set[str]:
    """``packages`` and what they bring along."""
    reached: set[str] = set()
    waiting = list(packages)
    while waiting:
        package = waiting.pop()
        if package not in reached:
            reached.add(package)
            waiting += _brings().get(package, ())
    return reached


def evaluate(path: Path) -> dict[str, float]:
    """The figures for one file."""
    hits = needed_total = found = predicted_total = right = sizes = positives = negatives = empty = 0
    spent = []
    for row in rows(path):
        needed = {names.equivalent(package) for package in row["packages"]}
        started = time.perf_counter()
        predicted = {want.package for want in predict(row["messages"])}
        spent.append(1000 * (time.perf_counter() - started))
        reached = covered(predicted)
        if needed:
            positives += 1
            hits += needed <= reached
            sizes += len(predicted)
            found += len(needed & reached)
            needed_total += len(needed)
        else:
            negatives += 1
            empty += not predicted
        predicted_total += len(predicted)
        right += len(predicted & covered(needed))
    return {
        "hit": hits / max(positives, 1),
        "recall": found / max(needed_total, 1),
        "precision": right / max(predicted_total, 1),
        "mean_size": sizes / max(positives, 1),
        "negatives_empty": empty / max(negatives, 1),
        "n": positives + negatives,
        "ms_p50": statistics.median(spent or [0.0]),
    }


def main(arguments: list[str]) -> int:
    if not arguments or not all(Path(name).is_file() for name in arguments):
        missing = [name for name in arguments if not Path(name).is_file()]
        sys.stderr.write(f"no such file: {', '.join(missing)}\n" if missing else f"{(__doc__ or '').strip()}\n")
        return 2
    columns = ("hit", "recall", "precision", "mean_size", "negatives_empty", "n", "ms_p50")
    sys.stdout.write(f"{'file':32}" + "".join(f"{name:>16}" for name in columns) + "\n")
    for name in arguments:
        figures = evaluate(Path(name))
        cells = "".join(f"{figures[c]:16.0f}" if c == "n" else f"{figures[c]:16.2f}" for c in columns)
        sys.stdout.write(f"{Path(name).name.partition('.')[0]:32}{cells}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
