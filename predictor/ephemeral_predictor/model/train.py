"""Makes the weights of step two from prompts whose packages are known: ``ephemeral train``.

    python -m ephemeral_predictor.model.train FILE ... [--output model.npz]

A file is a ``.tsv`` of ours, or has one JSON object a line with ``messages``, ``packages`` and ``license``; only rows whose licence permits a
shipped model are used. What ships was made from all of ``predictor/training``, whose README says where each file comes from. One logistic regression for each package that is wanted often enough, and one for "any package at all". Reproducible: the same
files give the same weights. Needs scikit-learn (the extra ``train``).
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ephemeral import names
from ephemeral.bench import say
from ephemeral_predictor.model import signals
from ephemeral_predictor.model.combining import Combining, candidates_of, of_any, of_package
from ephemeral_predictor.model.features import BUCKETS, counts, weigh
from ephemeral_predictor.model.shipped import DATA, Model
from ephemeral_predictor.model.signals import excerpt
from ephemeral_predictor.model.weights import Scores, Weights
from ephemeral_predictor.tasks import covered, rows

LICENCES = frozenset(("MIT", "Apache-2.0"))
FEWEST = 5  # examples of a package, to speak of it
FRAGMENTS = "topics_"
"""How the name of a file begins that holds fragments of requests."""
_COMMON = 40  # examples of a package, for it to count where rules and model are weighed against each other
_FOLDS = 3
_AT_ONCE = 16  # packages of one task: to hand the texts over takes as long as a fit
_NEVER = -6.0  # constant of a package that a fold has no example of
_STRENGTH = 8.0  # inverse of the regularisation
_FEWEST_WORDS, _FEWEST_PIECES = 2, 3  # texts that a bucket must occur in
_LEAST = 0.06  # a weight below this is left out


@dataclass(frozen=True)
class Example:
    """``whole``: a request as somebody would send it, and not only a few words that might stand in one."""

    text: str
    packages: frozenset[str]
    whole: bool = True


def examples(paths: Sequence[Path]) -> Iterator[Example]:
    """What can be learned from, each text once. Raises ValueError for a line that cannot be read."""
    known: set[str] = set()
    for path in paths:
        for row in rows(path):
            text = "\n".join(message["content"] for message in row["messages"] if message["role"] != "assistant")
            if row["license"] in LICENCES and text not in known:
                known.add(text)
                yield Example(text, frozenset(names.equivalent(package) for package in row["packages"]), not path.name.startswith(FRAGMENTS))


def train(learned_from: Sequence[Example], tell: Callable[[int, int], None] = lambda done, total: None) -> Model:
    """The model. ``tell(done, total)`` is called after each fit."""
    from joblib import Parallel, delayed
    from scipy import sparse

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
    common = [package for package in labels if wanted[package] >= _COMMON] or labels
    total, done = len(labels) + 1 + _FOLDS * (len(common) + 1), 0

    def fitted(packages: Sequence[str], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights and constants of ``packages`` and of "any package", from those examples."""
        nonlocal done
        learned = np.zeros((len(packages) + 1, len(buckets)), dtype=np.float32)
        bias = np.zeros(len(packages) + 1, dtype=np.float32)
        some = texts[rows]
        held = [learned_from[row].packages for row in rows]
        truths = [np.array([bool(packages) if package is None else package in packages for packages in held]) for package in [*packages, None]]
        place = 0
        for fits in workers(delayed(_fit)(some, truths[begin : begin + _AT_ONCE]) for begin in range(0, len(truths), _AT_ONCE)):
            for fit in fits:
                learned[place], bias[place] = fit
                place += 1
            tell(done := done + len(fits), total)
        return learned, bias

    # Processes, not threads: liblinear's random numbers are the process's, and the same files are to give the same weights.
    with Parallel(n_jobs=-1, return_as="generator", mmap_mode="c") as workers:
        combining = _combine(learned_from, common, texts, fitted)
        learned, bias = fitted(labels, np.arange(len(learned_from)))
    return Model(_packed(labels, buckets, np.array([idf[bucket] for bucket in buckets.tolist()], dtype=np.float32), learned, bias), combining)


def _fit(texts: Any, truths: Sequence[np.ndarray]) -> list[tuple[np.ndarray, float]]:
    from sklearn.linear_model import LogisticRegression

    fits: list[tuple[np.ndarray, float]] = []
    for truth in truths:
        if not truth.any():
            fits.append((np.zeros(texts.shape[1], dtype=np.float32), _NEVER))
            continue
        # The dual finds the same weights in a third of the time where there are more columns than rows (Yu, Huang, Lin 2011). It may stop before the last digit.
        with warnings.catch_warnings(action="ignore"):
            fit = LogisticRegression(C=_STRENGTH, solver="liblinear", dual=True, max_iter=60, random_state=0).fit(texts, truth)
        fits.append((fit.coef_[0].astype(np.float32), float(fit.intercept_[0])))
    return fits


def _combine(learned_from: Sequence[Example], common: Sequence[str], texts: Any, fitted: Callable[[Sequence[str], np.ndarray], tuple[np.ndarray, np.ndarray]]) -> Combining:
    """From what models say of examples that they were not trained on."""
    fold = np.random.RandomState(0).randint(0, _FOLDS, len(learned_from))
    logits = np.zeros((len(learned_from), len(common) + 1), dtype=np.float32)
    for number in range(_FOLDS):
        learned, bias = fitted(common, np.flatnonzero(fold != number))
        logits[fold == number] = texts[fold == number] @ learned.T + bias
    places = {package: place for place, package in enumerate(common)}
    scores = [Scores(places, row[:-1], float(row[-1])) for row in logits]
    # Fragments are no requests: how sure one may be of a request, they do not tell.
    whole = [(example, score, signals.read(excerpt(example.text))) for example, score in zip(learned_from, scores, strict=True) if example.whole]
    whether = np.array([of_any(score, signal) for _, score, signal in whole])
    needed = _coefficients(whether, [bool(example.packages) for example, _, _ in whole])
    rows, truth = [], []
    for example, score, signal in whole:
        brought = covered(example.packages)
        for package in candidates_of(score, signal) if example.packages else ():
            rows.append(of_package(package, score, signal))
            truth.append(package in brought)
    return Combining(needed, _coefficients(np.array(rows), truth))


def _coefficients(rows: np.ndarray, truth: Sequence[bool]) -> np.ndarray:
    """Those of a logistic regression, the constant last; where all is true, or nothing, the constant alone says how sure one may be."""
    from sklearn.linear_model import LogisticRegression

    if len(set(truth)) < 2:
        return np.array([0.0] * rows.shape[1] + [math.log((sum(truth) + 1) / (len(truth) - sum(truth) + 1))])
    fit = LogisticRegression(max_iter=2000).fit(rows, truth)
    return np.concatenate((fit.coef_[0], fit.intercept_))


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


def _packed(labels: Sequence[str], buckets: np.ndarray, idf: np.ndarray, learned: np.ndarray, bias: np.ndarray) -> Weights:
    """Rows by bucket, small weights left out, the others as bytes."""
    scale = np.maximum(np.abs(learned).max(axis=1), 1e-6) / 127
    kept = np.abs(learned) >= _LEAST
    place, label = np.nonzero(kept.T)
    values = np.round(learned.T[place, label] / scale[label]).astype(np.int8)
    starts = np.concatenate(([0], np.cumsum(kept.sum(axis=0)))).astype(np.int32)
    return Weights(np.array(labels), buckets, idf, starts, label.astype(np.uint16), values, scale.astype(np.float32), bias)


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
    with_packages = sum(bool(example.packages) for example in learned_from)
    often = max(Counter(package for example in learned_from for package in example.packages).values(), default=0)
    if often < FEWEST or len(learned_from) - with_packages < FEWEST:
        say({"error": f"nothing can be learned from {len(learned_from)} tasks, of which {with_packages} need a package: it takes {FEWEST} that need the same one, "
                      f"and {FEWEST} that need none", "hint": "give predictor/training/*.tsv"})  # fmt: skip
        return 2
    model = train(learned_from, lambda done, total: say({"what": "fitting", "done": done, "total": total}))
    model.write(chosen.output)
    say({"result": {
        "examples": len(learned_from), "with_packages": with_packages, "packages": len(model.weights.names),
        "weights": len(model.weights.values), "bytes": chosen.output.stat().st_size, "output": str(chosen.output),
    }})  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
