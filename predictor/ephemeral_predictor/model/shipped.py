"""The file with all that was trained: ``data/model.npz``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ephemeral_predictor.model.combining import LENGTHS, Combining
from ephemeral_predictor.model.weights import Weights

DATA = Path(__file__).parents[1] / "data/model.npz"


@dataclass(frozen=True)
class Model:
    weights: Weights
    combining: Combining

    @classmethod
    def read(cls, path: Path = DATA) -> Model:
        """Raises OSError, ValueError or KeyError for a file that is none of ours, or of another version."""
        with np.load(path, allow_pickle=False) as file:
            combining = Combining(file["combining_needed"], file["combining_package"])
            if (len(combining.needed), len(combining.package)) != LENGTHS:
                raise ValueError(f"{path} was made by another version: train it anew with `ephemeral train`")
            return cls(Weights.of(file), combining)

    def write(self, path: Path) -> None:
        arrays: dict[str, Any] = self.weights.arrays()
        np.savez_compressed(path, combining_needed=self.combining.needed, combining_package=self.combining.package, **arrays)


@cache
def shipped() -> Model:
    """What came with the package."""
    return Model.read()
