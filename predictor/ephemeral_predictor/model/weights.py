"""The linear model's weights, and what they say of a text.

For each bucket that matters there are the labels it speaks for and how much: most weights are nearly nothing and were left out, the
others are bytes. Scoring a text is adding up the rows of its buckets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from ephemeral_predictor.model.features import counts


@dataclass(frozen=True)
class Scores:
    """What the linear model says of a text, as logits: of the packages at their ``places``; ``needed``: of "any package"."""

    places: Mapping[str, int]
    packages: np.ndarray
    needed: float

    def of(self, package: str) -> float | None:
        """None for a package that the model has no label for."""
        place = self.places.get(package)
        return None if place is None else float(self.packages[place])

    def likeliest(self, most: int) -> list[tuple[str, float]]:
        """The packages with the highest logits, at most ``most``, in no order."""
        most = min(most, len(self.places))
        if not most:
            return []
        names = list(self.places)
        return [(names[place], float(self.packages[place])) for place in np.argpartition(-self.packages, most - 1)[:most].tolist()]


@dataclass(frozen=True)
class Weights:
    """``buckets`` (sorted) have ``idf`` and the rows ``starts[i]:starts[i + 1]`` of ``labels`` and ``values``; label ``len(names)`` is "any
    package". ``scale`` and ``bias`` are per label."""

    names: np.ndarray
    buckets: np.ndarray
    idf: np.ndarray
    starts: np.ndarray
    labels: np.ndarray
    values: np.ndarray
    scale: np.ndarray
    bias: np.ndarray

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Weights:
        """From the arrays of a file. Raises KeyError for one that is none of ours."""
        found = {field.name: arrays[field.name] for field in fields(cls)}
        return cls(**{**found, "idf": found["idf"].astype(np.float32)})

    def arrays(self) -> dict[str, np.ndarray]:
        """For the file."""
        return {**{field.name: getattr(self, field.name) for field in fields(self)}, "idf": self.idf.astype(np.float16)}

    @cached_property
    def places(self) -> dict[str, int]:
        """Package -> its label."""
        return {str(name): place for place, name in enumerate(self.names)}

    def scores(self, text: str) -> Scores:
        """Deterministic; in the order of a millisecond for a prompt of a thousand characters."""
        rows, amounts = self._rows(text)
        lengths = self.starts[rows + 1] - self.starts[rows]
        at = np.repeat(self.starts[rows] - np.concatenate(([0], np.cumsum(lengths)[:-1])), lengths) + np.arange(lengths.sum())
        said = np.bincount(self.labels[at], self.values[at] * np.repeat(amounts, lengths), minlength=len(self.bias))
        logits = said * self.scale + self.bias
        return Scores(self.places, logits[:-1], float(logits[-1]))

    def _rows(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """The rows that a text's buckets have, and how much each counts: what ``features.weigh`` says, for all at once."""
        rows: list[np.ndarray] = []
        amounts: list[np.ndarray] = []
        for found in counts(text):
            buckets = np.fromiter(found.keys(), dtype=np.int64, count=len(found))
            times = np.fromiter(found.values(), dtype=np.float64, count=len(found))
            places = np.searchsorted(self.buckets, buckets).clip(max=len(self.buckets) - 1)
            there = self.buckets[places] == buckets
            weighed = (1.0 + np.log(times[there])) * self.idf[places[there]]
            rows.append(places[there])
            amounts.append(weighed / max(float(np.sqrt(weighed @ weighed)), 1e-12))
        return np.concatenate(rows), np.concatenate(amounts)
