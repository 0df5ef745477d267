"""One sign that a package will be needed."""

from __future__ import annotations

from dataclasses import dataclass

from ephemeral.wire import Proposer

NEEDED = 0.5
"""Guesses count where it is this probable that any package is needed at all."""
LIKELY = 0.15
"""A guess less probable than this is not even made available. Chosen on the development sets: the lowest at which at most four packages are
predicted on average."""
FETCHED = 0.25
"""Nor is one less probable than this downloaded: a download stands before the imports of what is there. Outside of the shipped base environment, that is."""
WANTED = 0.35
"""What the code or a person names is planned from here; the guesses of an app's history too."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """``package`` in normal form, as ``names.equivalent`` gives it. ``kind`` goes into plans: ``import``, ``mention``, ``file``,
    ``concept``, ``model``, ``history``, ``pip install``, ``k2``; never text of the conversation."""

    package: str
    probability: float
    proposer: Proposer
    kind: str
    version: str | None = None
