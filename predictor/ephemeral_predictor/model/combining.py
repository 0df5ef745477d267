"""Rules and trained model as one calibrated probability for each package, and one for "any package at all".

Two logistic regressions over a handful of numbers each (stacking: Wolpert 1992, "Stacked generalization"): what the linear model says of a text that it
was not trained on, and what the rules say. So a rule counts as much as it deserves beside the model, and what comes out may be read as a probability. A
package is judged given that any is needed, and that probability is multiplied in: no package is more probable than any at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ephemeral_predictor import needs
from ephemeral_predictor.evidence import LIKELY, NEEDED
from ephemeral_predictor.model.signals import Signals
from ephemeral_predictor.model.weights import Scores

NOT_ASKED = -2.2
"""Added to the logit of "any package" where the words ask for no code: nearly all training prompts ask for something to be done, and most that
people write to a model do not (427 of 500 real prompts of the development set need no package). Chosen on the development sets."""
NAMED = 0.5
"""A package that is named, and at least this probable, is a need by itself, where the words may ask for code."""
_MAY_ASK = 0.2
CANDIDATES = 12  # labels of the model that are weighed, beside what the rules name
_UNKNOWN = -5.0  # logit of a package that the model has no label for, and of a rule that does not match
_LEAST = -4.5


LENGTHS = (11, 11)
"""Of the coefficients: the numbers of ``of_any`` and of ``of_package``, and a constant each."""


@dataclass(frozen=True)
class Combining:
    """Coefficients, the constant last: ``needed`` for ``of_any``, ``package`` for ``of_package``."""

    needed: np.ndarray
    package: np.ndarray

    def combine(self, scores: Scores, signals: Signals) -> tuple[float, dict[str, float]]:
        """Probability that any package is needed; package -> probability that the code imports it."""
        any_logit = float(self.needed[:-1] @ of_any(scores, signals) + self.needed[-1])
        if signals.asks < needs.THRESHOLD:
            any_logit += NOT_ASKED
        needed = _probability(any_logit)
        candidates = candidates_of(scores, signals)
        if not candidates:
            return needed, {}
        rows = np.array([of_package(package, scores, signals) for package in candidates])
        logits = rows @ self.package[:-1] + self.package[-1]
        if_any = {package: _probability(float(logit)) for package, logit in zip(candidates, logits, strict=True)}
        for package, mention in signals.mentioned.items():
            if mention.probability < LIKELY and package in if_any:  # one of many in a list: its name says as little to the model
                if_any[package] = min(if_any[package], mention.probability)
        if signals.asks >= _MAY_ASK and any(if_any.get(package, 0.0) >= NAMED for package in signals.mentioned):
            needed = max(needed, NEEDED)
        return needed, {package: needed * probability for package, probability in if_any.items()}


def candidates_of(scores: Scores, signals: Signals) -> list[str]:
    """The packages that are worth weighing, in a fixed order."""
    likely = {package for package, logit in scores.likeliest(CANDIDATES) if logit > _LEAST}
    return sorted((likely | signals.mentioned.keys() | signals.concepts.keys()) - signals.rejected)


def of_any(scores: Scores, signals: Signals) -> np.ndarray:
    """The numbers by which "any package" is judged."""
    likeliest = scores.likeliest(1)
    mention = max((evidence.probability for evidence in signals.mentioned.values()), default=0.0)
    return np.array([
        scores.needed, likeliest[0][1] if likeliest else _UNKNOWN, mention, bool(signals.directed) and signals.asks >= needs.THRESHOLD, bool(signals.concepts),
        signals.standard_library, signals.question, signals.chat, signals.other_language, signals.asks,
    ], dtype=np.float64)  # fmt: skip


def of_package(package: str, scores: Scores, signals: Signals) -> Sequence[float]:
    """The numbers by which one package is judged, where any is needed."""
    score = scores.of(package)
    logit = _UNKNOWN if score is None else score
    concept = signals.concepts.get(package)
    named = signals.mentioned[package].probability if package in signals.mentioned else 0.0
    return (
        logit, score is None, named, named * logit, package in signals.directed, _logit(concept.probability) if concept else _UNKNOWN, concept is not None, logit if concept else 0.0,
        bool(signals.mentioned) and not named, package in signals.replaced,
    )  # fmt: skip


def _logit(probability: float) -> float:
    return math.log(probability / (1.0 - probability))


def _probability(logit: float) -> float:
    return 1.0 / (1.0 + math.exp(-logit))
