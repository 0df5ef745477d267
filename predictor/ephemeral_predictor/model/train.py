"""Makes the weights of step two from prompts whose packages are known: ``ephemeral train``.

    python -m ephemeral_predictor.model.train FILE ... [--output model.npz]

A file is a ``.tsv`` of ours, or has one JSON object a line with ``messages``, ``packages`` and ``license``; only rows whose licence permits a
shipped model are used. What ships was made from ``predictor/training/*.tsv`` alone, which we wrote: anybody can make it again, and no
collection of tasks that a predictor is measured on had a part in it. One logistic regression for each package that is wanted often enough, and one for "any package at all". Reproducible: the same
files give the same weights. Needs scikit-learn (the extra ``train``).
"""

from __future__ import annotations

import argparse
import importlib.util
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ephemeral import names
from ephemeral.bench import say
from ephemeral_predictor.model.features import BUCKETS, counts, weigh
from ephemeral_predictor.model.weights import DATA, Weights
from ephemeral_predictor.tasks import rows

LICENCES = frozenset(("MIT", "Apache-2.0"))
FEWEST = 6  # examples of a package, to speak of it
_STRENGTH = 8.0  # inverse of the regularisation
_FEWEST_WORDS, _FEWEST_PIECES = 2, 3  # texts that a bucket must occur in
_LEAST = 0.06  # a weight below this is left out


@dataclass(frozen=True)
class Example:
    text: str
    packages: frozenset[str]


def examples(paths: Sequence[Path]) -> Iterator[Example]:
    """What can be learned from. Raises ValueError for a line that cannot be read."""
    for path in paths:
        for row in rows(path):
            if row["license"] not in LICENCES:
                continue
            text = "\n".join(message["content"] for message in row["messages"] if message["role"] != "assistant")
            yield Example(text, frozenset(names.equivalent(package) for package in row["packages"]))


def train(learned_from: Sequence[Example], tell: Callable[[int, int], None] = lambda done, total: None) -> Weights:
    """The weights. ``tell(done, total)`` is called after each package."""
    from scipy import sparse
    from sklearn.linear_model import LogisticRegression

    found = [counts(example.text) for example in learned_from]
    idf = _idf(found)
    buckets = np.array(sorted(idf), dtype=np.int32)
    column = {bucket: place for place, bucket in enumerate(buckets.tolist())}
    ends, columns, values = [0], [], []
    for words, pieces in found:
        for part in (words, pieces):
            for bucket, value in weigh(part, idf).items():
                columns.append(column[bucket])
                values.append(value)
        ends.append(len(columns))
    texts = sparse.csr_matrix((values, columns, ends), shape=(len(found), len(buckets)))
    wanted = Counter(package for example in learned_from for package in example.packages)
    labels = sorted(package for package, times in wanted.items() if times >= FEWEST)
    truths = [[package in example.packages for example in learned_from] for package in labels]
    truths.append([bool(example.packages) for example in learned_from])
    learned = np.zeros((len(truths), len(buckets)), dtype=np.float32)
    bias = np.zeros(len(truths), dtype=np.float32)
    for place, truth in enumerate(truths):
        fitted = LogisticRegression(C=_STRENGTH, solver="liblinear", random_state=0).fit(texts, truth)
        learned[place], bias[place] = fitted.coef_[0], fitted.intercept_[0]
        tell(place + 1, len(truths))
    return _packed(tuple(labels), buckets, np.array([idf[bucket] for bucket in buckets.tolist()], dtype=np.float32), learned, bias)


def _idf(found: Sequence[tuple[Counter[int], Counter[int]]]) -> dict[int, float]:
    texts: Counter[int] = Counter()
    for words, pieces in found:
        texts.update(words.keys())
        texts.update(pieces.keys())
    return {
        bucket: float(np.float16(math.log((1 + len(found)) / (1 + times)) + 1))  # as it will be read back
        for bucket, times in texts.items()
        if times >= (_FEWEST_WORDS if bucket < BUCKETS else _FEWEST_PIECES)
    }


def _packed(labels: tuple[str, ...], buckets: np.ndarray, idf: np.ndarray, learned: np.ndarray, bias: np.ndarray) -> Weights:
    """Rows by bucket, small weights left out, the others as bytes."""
    scale = np.maximum(np.abs(learned).max(axis=1), 1e-6) / 127
    kept = np.abs(learned) >= _LEAST
    place, label = np.nonzero(kept.T)
    values = np.round(learned.T[place, label] / scale[label]).astype(np.int8)
    starts = np.concatenate(([0], np.cumsum(kept.sum(axis=0)))).astype(np.int32)
    return Weights(labels, buckets, idf, starts, label.astype(np.uint8), values, scale.astype(np.float32), bias)


def main(arguments: Sequence[str] | None = None) -> int:
    """Progress and the result as JSON lines, as `ephemeral train` shows them. Exit code 2 for files that cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m ephemeral_predictor.model.train", description=(__doc__ or "").strip())
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, default=DATA)
    chosen = parser.parse_args(arguments)
    if importlib.util.find_spec("sklearn") is None:
        say({"error": "training needs scikit-learn, which is not installed here", "hint": "pip install 'ephemeral-sidecar[train]'"})
        return 2
    try:
        learned_from = list(examples(chosen.files))
    except (OSError, ValueError, KeyError, TypeError) as problem:
        say({"error": f"the training files cannot be read: {problem}", "hint": "one task a line: see predictor/training/README.md"})
        return 2
    if not any(example.packages for example in learned_from):
        say({"error": f"nothing can be learned from {len(learned_from)} tasks, of which none needs a package", "hint": "give predictor/training/*.tsv"})
        return 2
    weights = train(learned_from, lambda done, total: say({"what": "fitting", "done": done, "total": total}))
    weights.write(chosen.output)
    say({"result": {
        "examples": len(learned_from), "with_packages": sum(bool(example.packages) for example in learned_from), "packages": len(weights.names),
        "weights": len(weights.values), "bytes": chosen.output.stat().st_size, "output": str(chosen.output),
    }})  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
