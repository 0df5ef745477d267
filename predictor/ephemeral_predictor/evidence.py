"""One sign that a package will be needed."""

from __future__ import annotations

from dataclasses import dataclass

from ephemeral.wire import Proposer

WANTED = 0.35
"""A package less probable than this costs more, in memory and downloads, than it saves."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """``package`` in normal form, as ``names.equivalent`` gives it. ``kind`` goes into plans: ``import``, ``mention``, ``file``,
    ``concept``, ``model``, ``history``, ``pip install``, ``k2``; never text of the conversation."""

    package: str
    probability: float
    proposer: Proposer
    kind: str
    version: str | None = None
