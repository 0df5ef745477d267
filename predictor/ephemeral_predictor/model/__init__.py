"""A linear model over hashed n-grams, trained on prompts whose packages are known: what words say beyond the rules of ``learned``.

| module | |
|---|---|
| ``features`` | a text as a sparse vector |
| ``weights`` | the shipped weights, and what they say of a text |
| ``train`` | makes the weights (``ephemeral train``); needs scikit-learn |
"""

from __future__ import annotations

from ephemeral_predictor.model.weights import shipped

NEEDED = 0.6
"""The model names packages only where it is so sure that any is needed."""
LEAST = 0.12
MOST = 6


def likely(text: str) -> dict[str, float]:
    """The packages that the code asked for in ``text`` may import, the likeliest first, at most MOST; nothing where it hardly needs any."""
    prediction = shipped().predict(text)
    if prediction.needed < NEEDED:
        return {}
    likeliest = sorted(prediction.packages.items(), key=lambda item: (-item[1], item[0]))[:MOST]
    return {package: probability for package, probability in likeliest if probability >= LEAST}
