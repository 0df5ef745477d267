"""The shipped weights, and what they say of a text.

``data/model.npz`` holds, for each bucket that matters, the labels it speaks for and how much: most weights are nearly nothing
and were left out, the others are bytes. Scoring a text is adding up the rows of its buckets.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ephemeral_predictor.model.features import counts, weigh

DATA = Path(__file__).parents[1] / "data/model.npz"


@dataclass(frozen=True)
class Prediction:
    """``packages``: package (normal form) -> probability that the code that follows imports it; ``needed``: that it imports any."""

    packages: dict[str, float]
    needed: float


@dataclass(frozen=True)
class Weights:
    """``buckets`` (sorted) have ``idf`` and the rows ``starts[i]:starts[i + 1]`` of ``labels`` and ``values``; label ``len(names)`` is "any
    package". ``scale`` and ``bias`` are per label."""

    names: tuple[str, ...]
    buckets: np.ndarray
    idf: np.ndarray
    starts: np.ndarray
    labels: np.ndarray
    values: np.ndarray
    scale: np.ndarray
    bias: np.ndarray

    @classmethod
    def read(cls, path: Path = DATA) -> Weights:
        """Raises OSError, ValueError or KeyError for a file that is none of ours."""
        with np.load(path, allow_pickle=False) as file:
            return cls(
                names=tuple(str(name) for name in file["names"]),
                buckets=file["buckets"], idf=file["idf"].astype(np.float32), starts=file["starts"], labels=file["labels"],
                values=file["values"], scale=file["scale"], bias=file["bias"],
            )  # fmt: skip

    def write(self, path: Path) -> None:
        np.savez_compressed(
            path, names=np.array(self.names), buckets=self.buckets, idf=self.idf.astype(np.float16), starts=self.starts, labels=self.labels,
            values=self.values, scale=self.scale, bias=self.bias,
        )  # fmt: skip

    def predict(self, text: str) -> Prediction:
        """Deterministic; in the order of a millisecond for a prompt of a thousand characters."""
        rows, amounts = self._rows(text)
        lengths = self.starts[rows + 1] - self.starts[rows]
        at = np.repeat(self.starts[rows] - np.concatenate(([0], np.cumsum(lengths)[:-1])), lengths) + np.arange(lengths.sum())
        said = np.bincount(self.labels[at], self.values[at] * np.repeat(amounts, lengths), minlength=len(self.bias))
        chances = 1.0 / (1.0 + np.exp(-(said * self.scale + self.bias)))
        *packages, needed = (float(chance) for chance in chances)
        return Prediction(dict(zip(self.names, packages, strict=True)), needed)

    def _rows(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """The rows that a text's buckets have, and how much each counts."""
        known: list[int] = []
        amounts: list[float] = []
        for found in counts(text):
            buckets = np.fromiter(found, dtype=np.int64, count=len(found))
            rows = np.searchsorted(self.buckets, buckets).clip(max=len(self.buckets) - 1)
            there = self.buckets[rows] == buckets
            idf = dict(zip(buckets[there].tolist(), self.idf[rows[there]].tolist(), strict=True))
            place = dict(zip(buckets[there].tolist(), rows[there].tolist(), strict=True))
            for bucket, amount in weigh(found, idf).items():
                known.append(place[bucket])
                amounts.append(amount)
        return np.array(known, dtype=np.int64), np.array(amounts, dtype=np.float32)


@cache
def shipped() -> Weights:
    """The weights that came with the package."""
    return Weights.read()
