"""What things cost on this host: medians of what was recorded lately.

Read off the marks that sessions leave (``preload``, ``build``, ``ready``, ``code_arrived``, ``ended``), off what sandboxes took to start, and off the
snapshots that are valid here. All of it is read again from the database at the start, so that nothing measured is lost with the process.

A module is timed where it is imported by hand; what is restored costs no import. Where that has not happened, two snapshots that differ by
one module say what it took when they were made, its rehearsal included.
"""

from __future__ import annotations

import statistics
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ephemeral.costs import PRIORS
from ephemeral.wire import Costs, Figure, ModuleCosts, Moment, Sandbox, Snapshot

KINDS = ("boot", "restore", "spare", "preload", "build", "ready", "code_arrived", "released", "ended")
"""Kinds of moments that say something about costs."""

REMEMBERED = 50
"""Observations that a median is taken of: the host may have become another."""
MODULES = 500
"""Modules that are known at most; what was timed longest ago goes first. Their names come from code that nobody trusts."""
UNDER_WAY = 1000
"""Sandboxes, and sessions, that are followed at the same time."""
SNAPSHOTS = 500
"""Sets of modules whose snapshots are compared; what was told longest ago goes first."""
MOST = 1e15
"""Milliseconds, seconds or bytes: what is more was never measured."""
MATTERS_MS = 5.0
"""What took less was not really imported: something before it had brought it along. Sandboxes are asked for thousands of such modules."""

def figure(observed: Iterable[float], prior: Figure) -> Figure:
    """Their median, or ``prior`` where there is none."""
    values = list(observed)
    return Figure(value=min(MOST, round(statistics.median(values), 3)), n=len(values), source="measured") if values else prior


def measured(value: Any) -> float | None:
    """``value`` where it can have been measured; None for what is no number, below 0 or absurd: anybody with the token may leave marks."""
    return float(value) if isinstance(value, int | float) and 0 <= value <= MOST else None


@dataclass
class _Standing:
    """A sandbox that is being made ready: what it came with, and what has been imported in it since."""

    has: set[str]
    spent: dict[str, list[float]] = field(default_factory=dict)
    """Top-level module -> [milliseconds, bytes]; bytes below 0 where they were not looked at."""


def _recent() -> deque[float]:
    return deque(maxlen=REMEMBERED)


class CostBook:
    """Told of every moment, sandbox and snapshot, in order; ``costs()`` is cheap. Nothing here raises on what is odd in them."""

    def __init__(self) -> None:
        self._times: dict[str, deque[float]] = {name: _recent() for name in ("boot", "restore", "fetch", "used", "ended")}
        self._modules: OrderedDict[str, tuple[deque[float], deque[float]]] = OrderedDict()
        self._snapshots: OrderedDict[frozenset[str], Snapshot] = OrderedDict()
        self._sandboxes: OrderedDict[str, _Standing] = OrderedDict()
        self._ready: OrderedDict[str, float] = OrderedDict()  # session -> since when a sandbox stands ready for it
        self._costs: Costs | None = None

    def moment(self, moment: Moment) -> None:
        if moment.kind not in KINDS:
            return
        sandbox, took = str(moment.data.get("sandbox", "")), measured(moment.duration_ms) or 0.0
        match moment.kind:
            case "boot" | "restore" | "spare":
                self._begun(sandbox, moment.data.get("modules"))
            case "preload" if "failed" not in moment.data:
                self._imported(sandbox, moment.detail, took, moment.data.get("memory_bytes"))
            case "build":
                fetched = measured(moment.data.get("fetch_ms"))
                if fetched is not None and moment.data.get("readiness") == "cold":
                    self._note("fetch", fetched)
            case "ready":
                self._settle(sandbox)
                self._ready.setdefault(moment.session, moment.at)
                _bound(self._ready)
            case "code_arrived":
                self._stood("used", moment)
            case "released" | "ended" if moment.detail != "sandboxd stopped":
                self._stood("ended", moment)

    def sandbox(self, sandbox: Sandbox) -> None:
        """Any change of one: its first says how it started."""
        if sandbox.state == "booting" and sandbox.start_ms:
            self.started(sandbox.start_ms, bool(sandbox.modules))
            self._begun(sandbox.id, sandbox.modules)

    def started(self, took_ms: float, with_modules: bool) -> None:
        """A sandbox stands: one with nothing imported (booted, or restored from the bare snapshot, whichever this host does), or one with modules."""
        self._note("restore" if with_modules else "boot", took_ms)

    def snapshot(self, snapshot: Snapshot) -> None:
        """One that is valid here; the latest of its modules counts."""
        tops = frozenset(module.partition(".")[0] for module in snapshot.modules)
        known = self._snapshots.get(tops)
        if known is None or known.created_at <= snapshot.created_at:
            self._snapshots[tops] = snapshot
            self._snapshots.move_to_end(tops)
            _bound(self._snapshots, SNAPSHOTS)
            if known is None or known.import_ms != snapshot.import_ms:
                self._costs = None

    def costs(self) -> Costs:
        if self._costs is None:
            modules = self._of_modules()
            self._costs = Costs(
                boot_ms=figure(self._times["boot"], PRIORS.boot_ms),
                restore_ms=figure(self._times["restore"], PRIORS.restore_ms),
                import_ms=figure((costs.import_ms.value for costs in modules.values()), PRIORS.import_ms),
                memory_bytes=figure((costs.memory_bytes.value for costs in modules.values() if costs.memory_bytes.n), PRIORS.memory_bytes),
                fetch_ms=figure(self._times["fetch"], PRIORS.fetch_ms),
                until_used_seconds=figure(self._times["used"], PRIORS.until_used_seconds),
                until_ended_seconds=figure(self._times["ended"], PRIORS.until_ended_seconds),
                modules=modules,
            )
        return self._costs

    # ---------------------------------------------------------------------------------------------- sandboxes

    def _begun(self, sandbox: str, modules: Any) -> None:
        if sandbox and isinstance(modules, list):
            self._sandboxes[sandbox] = _Standing({str(module).partition(".")[0] for module in modules})
            _bound(self._sandboxes)

    def _imported(self, sandbox: str, module: str, took: float, memory_bytes: Any) -> None:
        standing, top = self._sandboxes.get(sandbox), module.partition(".")[0]
        if standing is None or top in standing.has or took < MATTERS_MS or not top.isidentifier():
            return
        spent = standing.spent.setdefault(top, [0.0, -1.0])
        spent[0] += took
        if (added := measured(memory_bytes)) is not None:
            spent[1] = max(0.0, spent[1]) + added

    def _settle(self, sandbox: str) -> None:
        """It is ready: what was imported in it until now is all that there is to import of these modules."""
        standing = self._sandboxes.get(sandbox)
        if standing is None:
            return
        for top, (took, memory_bytes) in standing.spent.items():
            times, sizes = self._modules.setdefault(top, (_recent(), _recent()))
            times.append(took)
            if memory_bytes >= 0:
                sizes.append(memory_bytes)
            self._modules.move_to_end(top)
            self._costs = None
        standing.has |= standing.spent.keys()
        standing.spent.clear()
        _bound(self._modules, MODULES)

    def _stood(self, how: str, moment: Moment) -> None:
        since = self._ready.pop(moment.session, None)
        if since is not None:
            self._note(how, min(MOST, max(0.0, moment.at - since)))

    def _note(self, name: str, value: float) -> None:
        self._times[name].append(value)
        self._costs = None

    # ---------------------------------------------------------------------------------------------- modules

    def _of_modules(self) -> dict[str, ModuleCosts]:
        times, sizes = self._of_snapshots()
        for top, (took, held) in self._modules.items():
            if took:
                times[top] = list(took)
            if held:
                sizes[top] = list(held)
        return {
            top: ModuleCosts(import_ms=figure(took, PRIORS.import_ms), memory_bytes=figure(sizes.get(top, ()), PRIORS.memory_bytes))
            for top, took in sorted(times.items())
        }

    def _of_snapshots(self) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
        """Top-level module -> milliseconds, and bytes, by which snapshots with it exceed those that lack only it."""
        times: dict[str, list[float]] = {}
        sizes: dict[str, list[float]] = {}
        for tops, snapshot in self._snapshots.items():
            for top in tops:
                without = self._snapshots.get(tops - {top})
                if without is not None and snapshot.import_ms - without.import_ms >= MATTERS_MS:
                    times.setdefault(top, []).append(snapshot.import_ms - without.import_ms)
                    if snapshot.size_bytes > without.size_bytes:
                        sizes.setdefault(top, []).append(float(snapshot.size_bytes - without.size_bytes))
        return times, sizes


def _bound(kept: OrderedDict[Any, Any], most: int = UNDER_WAY) -> None:
    while len(kept) > most:
        kept.popitem(last=False)
