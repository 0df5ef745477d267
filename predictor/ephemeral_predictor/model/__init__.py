"""Step two of the ladder as one verdict on a text: which packages the code that it asks for will import, how probably, and whether any.

| module | |
|---|---|
| ``signals`` | what the rules say: names, concepts, whether code is asked for |
| ``features`` | a text as a sparse vector |
| ``weights`` | the linear model, and what it says of a text |
| ``combining`` | both as calibrated probabilities |
| ``shipped`` | the file with what was trained |
| ``train`` | makes weights and coefficients (``ephemeral train``); needs scikit-learn |
"""

from __future__ import annotations

from dataclasses import dataclass

from ephemeral_predictor.evidence import Evidence
from ephemeral_predictor.model import signals
from ephemeral_predictor.model.shipped import shipped
from ephemeral_predictor.model.signals import Signals


@dataclass(frozen=True)
class Verdict:
    """``needed``: probability that the code imports any package. ``evidence``: of each package that was weighed, the likeliest first, with the kind of the
    strongest sign: ``mention``, ``concept``, ``file``, or ``model`` where only the trained model speaks for it."""

    needed: float
    evidence: list[Evidence]
    signals: Signals


def read(text: str) -> Verdict:
    """Deterministic; in the order of four milliseconds for a prompt of a thousand characters."""
    said = signals.read(text)
    model = shipped()
    needed, probabilities = model.combining.combine(model.weights.scores(text), said)
    evidence = [_evidence(package, probability, said) for package, probability in probabilities.items()]
    return Verdict(needed, sorted(evidence, key=lambda e: (-e.probability, e.package)), said)


def _evidence(package: str, probability: float, said: Signals) -> Evidence:
    rule = said.mentioned.get(package) or said.concepts.get(package)
    if rule is None:
        return Evidence(package, probability, "learned", "model")
    return Evidence(package, probability, rule.proposer, rule.kind, rule.version)
