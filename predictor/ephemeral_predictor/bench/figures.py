"""Predictions into figures."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ephemeral.bench import describe
from ephemeral_predictor import tasks
from ephemeral_predictor.bench.conversation import Prediction

BINS = 10
FLOOR = 0.05
ENOUGH = {"positives": 30, "tails": 30, "negatives": 30, "pairs": 100, "n": 1}
"""With fewer of these a file's figure is left out of the macro average: it would be chance that counts as much as a whole set."""
RESTS_ON = {
    "hit": "positives", "recall": "positives", "precision": "positives", "mean_size": "positives", "calibration_error": "pairs", "negatives_empty": "negatives",
    "covered": "positives", "tail_hit": "tails", "ms_p50": "n", "ms_p99": "n",
}
"""Figure -> what there must be enough of."""

DEFINITIONS = {
    "hit": "share of the records with packages whose whole set lies in the dependency closure of the prediction",
    "recall": "of all needed packages, the share that lies in the closure of its record's prediction",
    "precision": "of all predicted packages, over all records, the share that the code imports or brings along",
    "mean_size": "packages predicted, dependencies not counted: mean over the records with packages",
    "calibration_error": (
        f"expected calibration error over all (record, candidate) pairs, weighed by size, in {BINS} bins of equal mass (equal probabilities are never parted). Candidates: "
        f"every package that was given a probability of {FLOOR} or more, planned or not, in all records; right: the code imports it or brings it along"),
    "negatives_empty": "share of the records without packages for which no package is predicted",
    "covered": (
        "share of the records with packages whose whole set is importable without a download: base environment, or the closure of what is planned at that moment (which holds "
        "what was seen)"),
    "tail_hit": "hit over the records that need something outside the base environment",
    "n": "records; positives, tails, negatives: those with packages, with one outside the base environment, with none; pairs: those of calibration_error",
    "ms": "prompt_only: from the last request's events to the plan, on this machine; with_code: one piece of the code. Per step it is not measured",
    "prompt_only": "after all messages, before the answer; no tool is declared, nothing is known of the app",
    "with_code": (
        "after that fraction of the code's characters came as the arguments of a tool call, what was planned before included; over the records with code (where a record's code "
        "imports more than its packages name, its own tests for example, that counts as wrong)"),
    "combined": "the whole ladder; K2 is part of it where a key is set, and its answer was waited for",
    "steps": "the same plan from the evidence of one step alone; whether code is expected is decided by the whole ladder",
    "pooled": "all records of all files as one",
    "macro": (
        f"mean over the files, each counting the same. A file with fewer than {ENOUGH['positives']} records with packages counts as negatives only: it is left out of hit, recall, "
        f"precision, mean_size and covered; one with fewer than {ENOUGH['negatives']} without packages is left out of negatives_empty, one with fewer than {ENOUGH['tails']} tails "
        f"out of tail_hit, one with fewer than {ENOUGH['pairs']} pairs out of calibration_error, unless no file has so many (left_out names them). n, positives, tails, negatives, "
        "pairs: sums"),
}
"""What each figure of the result means."""


@dataclass
class Tally:
    """Predictions at one moment, over many records."""

    positives: int = 0
    negatives: int = 0
    tails: int = 0
    _hits: int = 0
    _tail_hits: int = 0
    _covered: int = 0
    _empty: int = 0
    _needed: int = 0
    _found: int = 0
    _predicted: int = 0
    _right: int = 0
    _sizes: int = 0
    _milliseconds: list[float] = field(default_factory=list)
    _candidates: list[tuple[float, bool]] = field(default_factory=list)

    def add(self, needed: frozenset[str], prediction: Prediction, milliseconds: Iterable[float] = ()) -> None:
        """One record: what its code needs, what was predicted, and how long that took."""
        reached = tasks.covered(prediction.packages)
        brought = tasks.covered(needed)
        if needed:
            hit = needed <= reached
            tail = not needed <= tasks.base()
            self.positives += 1
            self.tails += tail
            self._hits += hit
            self._tail_hits += hit and tail
            self._covered += needed <= reached | tasks.base()
            self._needed += len(needed)
            self._found += len(needed & reached)
            self._sizes += len(prediction.packages)
        else:
            self.negatives += 1
            self._empty += not prediction.packages
        self._predicted += len(prediction.packages)
        self._right += len(prediction.packages & brought)
        self._milliseconds += milliseconds
        self._candidates += [(p, package in brought) for package, p in prediction.candidates.items() if p >= FLOOR]

    def figures(self) -> dict[str, Any]:
        """None for what these records cannot say."""
        bins = calibration(self._candidates)
        spent = describe(self._milliseconds)
        return {
            "hit": _share(self._hits, self.positives),
            "recall": _share(self._found, self._needed),
            "precision": _share(self._right, self._predicted),
            "mean_size": _share(self._sizes, self.positives),
            "calibration_error": round(sum(b["n"] * abs(b["said"] - b["was"]) for b in bins) / len(self._candidates), 4) if bins else None,
            "negatives_empty": _share(self._empty, self.negatives),
            "covered": _share(self._covered, self.positives),
            "tail_hit": _share(self._tail_hits, self.tails),
            "n": self.positives + self.negatives,
            "ms_p50": spent["p50"],
            "ms_p99": spent["p99"],
            "positives": self.positives,
            "tails": self.tails,
            "negatives": self.negatives,
            "pairs": len(self._candidates),
            "calibration": [{"n": b["n"], "said": round(b["said"], 4), "was": round(b["was"], 4)} for b in bins],
        }


def calibration(candidates: Sequence[tuple[float, bool]]) -> list[dict[str, Any]]:
    """Candidates (probability, whether it was right) in bins of about equal mass: of each, how many, the probability ``said`` and the share that ``was`` right."""
    bins: list[dict[str, Any]] = []
    ordered = sorted(candidates)
    begin = 0
    for end in range(1, len(ordered) + 1):
        full = end >= len(ordered) * (len(bins) + 1) / BINS
        if end == len(ordered) or (full and ordered[end][0] != ordered[end - 1][0]):
            part = ordered[begin:end]
            bins.append({"n": len(part), "said": statistics.fmean(p for p, _ in part), "was": statistics.fmean(right for _, right in part)})
            begin = end
    return bins


def macro(files: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Of several files' ``combined`` and ``steps``, by the figure's mean. What some file has, the macro has too."""
    results = list(files.values())
    steps = dict.fromkeys(step for result in results for step in result["steps"])
    return {
        "combined": _macro([result["combined"] for result in results]),
        "steps": {step: _macro([result["steps"][step] for result in results if step in result["steps"]]) for step in steps},
        "left_out": {
            what: [name for name, result in files.items() if result["combined"]["prompt_only"][what] < least] for what, least in ENOUGH.items() if what != "n"},
    }


def _macro(moments: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    fractions = dict.fromkeys(fraction for moment in moments for fraction in moment.get("with_code", ()))
    found: dict[str, Any] = {"prompt_only": _mean([moment["prompt_only"] for moment in moments])}
    if fractions:
        found["with_code"] = {
            fraction: _mean([moment["with_code"][fraction] for moment in moments if "with_code" in moment]) for fraction in fractions}
    return found


def _mean(figures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    mean: dict[str, Any] = {}
    for name, what in RESTS_ON.items():
        known = [one for one in figures if one[name] is not None]
        values = [one[name] for one in known if one[what] >= ENOUGH[what]] or [one[name] for one in known]
        mean[name] = round(statistics.fmean(values), 4) if values else None
    return {**mean, **{name: sum(one[name] for one in figures) for name in ("n", "positives", "tails", "negatives", "pairs")}}


def _share(part: float, whole: float) -> float | None:
    return round(part / whole, 4) if whole else None
