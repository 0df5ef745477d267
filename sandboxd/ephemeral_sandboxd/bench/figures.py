"""Samples in, figures out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ephemeral.bench import P99_SAMPLES, describe
from ephemeral_sandboxd.bench.catalogue import Entry


class Figures:
    """What was measured of ``entries``. Samples and reasons for other names are dropped: nobody asked."""

    def __init__(self, entries: Iterable[Entry]):
        self._entries = {entry.name: entry for entry in entries}
        self._measured: dict[str, dict[str, Any]] = {}

    def wanted(self, prefix: str) -> bool:
        """Whether ``prefix``, or anything below it, is to be measured."""
        return any(name == prefix or name.startswith(f"{prefix}.") for name in self._entries)

    def add(self, name: str, samples: Sequence[float], *, failed: int = 0, **facts: Any) -> None:
        """``failed``: how many tries of the same kind came to nothing. ``facts`` go into the figure as they are."""
        if entry := self._entries.get(name):
            self._measured[name] = figure(entry, samples, failed=failed) | facts

    def missing(self, prefix: str, reason: str) -> None:
        """``prefix`` and all below it that was not measured yet cannot be, and why."""
        for name, entry in self._entries.items():
            if (name == prefix or name.startswith(f"{prefix}.")) and name not in self._measured:
                self._measured[name] = figure(entry, [], missing=reason)

    def result(self) -> dict[str, Any]:
        """Nested by the dots of the names, in the catalogue's order; every entry is there."""
        tree: dict[str, Any] = {}
        for name, entry in self._entries.items():
            *folders, leaf = name.split(".")
            place = tree
            for folder in folders:
                place = place.setdefault(folder, {})
            place[leaf] = self._measured.get(name) or figure(entry, [], missing="not measured")
        return tree


def figure(entry: Entry, samples: Sequence[float], *, failed: int = 0, missing: str = "") -> dict[str, Any]:
    """``{"n", "min", "p50", "p99", "max", "unit", "what"}``, statistics null without samples, and where they apply: ``p99_is`` ("max",
    for fewer than 100 samples), ``goal`` with ``met``, ``failed``, ``missing`` (the reason why nothing was measured)."""
    found: dict[str, Any] = {"n": len(samples), **describe(samples), "unit": entry.unit, "what": entry.what}
    if 0 < len(samples) < P99_SAMPLES:
        found["p99_is"] = "max"
    if failed:
        found["failed"] = failed
    if entry.goal:
        found["goal"] = entry.goal
        if samples:
            found["met"] = not failed and all(found[statistic] <= most for statistic, most in entry.goal.items())
    if missing:
        found["missing"] = missing
    return found
