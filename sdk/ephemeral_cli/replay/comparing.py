"""Several policies over the same tasks, side by side: their figures, and in sentences who is better at what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rich.console import RenderableType
from rich.table import Table

from ephemeral import names, wire
from ephemeral_cli.replay import report
from ephemeral_cli.replay.conversation import Held
from ephemeral_cli.replay.policies import K2, POLICIES

SAME = 1.05
"""Figures that differ by less than this are equal."""

Figures = Mapping[str, Any]


class Goal(NamedTuple):
    """``figure``, a path into the figures of which less is better, is to be ``factor`` times that of ``rival`` or better. 1: at least equal."""

    rival: str
    figure: str
    factor: float


GOALS = (
    Goal("base", "wait_ms.p95", 5),
    Goal("fat-snapshot", "wait_ms.p50", 1),
    Goal("fat-snapshot", "wait_outside_twenty_ms.p95", 2),
    Goal("fat-snapshot", "memory_gib_seconds", 2),
)
WAITS = ("wait_ms.p50", "wait_ms.p95", "wait_ms.p99", "wait_ms.max", "wait_outside_twenty_ms.p95", "wait_within_base_ms.p95")
WORDS = {
    "wait_ms.p50": ("wait p50", "ms"), "wait_ms.p95": ("wait p95", "ms"), "wait_ms.p99": ("wait p99", "ms"), "wait_ms.max": ("longest wait", "ms"),
    "wait_outside_twenty_ms.p95": ("wait p95 where anything outside the twenty is needed", "ms"),
    "wait_within_base_ms.p95": ("wait p95 where nothing beyond the base is needed", "ms"),
    "memory_gib_seconds": ("memory held", "GiB s"),
}  # fmt: skip


@dataclass
class Measured:
    """What one policy's house told. ``k2`` is None where K2 was not to be asked; ``seconds`` is how long it all took."""

    conversations: list[Held]
    strays: list[wire.Session] = field(default_factory=list)
    base_packages: list[str] = field(default_factory=list)
    k2: dict[str, Any] | None = None
    seconds: float = 0.0


# ------------------------------------------------------------------------------------------------------------ figures


def figures(measured: Mapping[str, Measured], twenty: frozenset[str]) -> dict[str, dict[str, Any]]:
    """By policy: ``report.summary`` and what is asked of a comparison. ``twenty``: packages that the fat snapshot has imported.

    What a task needs is what its code was found to need under any of the policies, so that every policy's figures are of the same tasks. A task that
    one policy ran well and another did not is ``unserved`` by the other, whose wait for it is left out: giving up is quick.
    """
    needed = _needed(measured.values())
    ran = {held.task.id for one in measured.values() for held in one.conversations if held.ok and held.executions}
    base = frozenset(names.equivalent(package) for one in measured.values() for package in one.base_packages)
    outside = {task for task, packages in needed.items() if packages - twenty}
    within = {task for task, packages in needed.items() if packages <= base}
    return {policy: _figures(measured[policy], ran, outside, within) for policy in POLICIES if policy in measured}


def _figures(one: Measured, ran: set[str], outside: set[str], within: set[str]) -> dict[str, Any]:
    found = report.summary(one.conversations, one.strays)
    unserved = sorted(held.task.id for held in one.conversations if held.task.id in ran and not held.ok)
    served = [held for held in one.conversations if held.task.id not in unserved]
    return {
        **found,
        "unserved": unserved,
        "wait_ms": _waits(served),
        "wait_outside_twenty_ms": _waits([held for held in served if held.task.id in outside]),
        "wait_within_base_ms": _waits([held for held in served if held.task.id in within]),
        "wasted_share": round(found["wasted"] / found["builds"], 4) if found["builds"] else None,
        "k2": one.k2,
        "seconds": round(one.seconds, 1),
    }


def _needed(measured: Iterable[Measured]) -> dict[str, frozenset[str]]:
    """Task -> packages, for the tasks whose code came to run."""
    needed: dict[str, frozenset[str]] = {}
    for one in measured:
        for held in one.conversations:
            if held.executions:
                packages = {names.equivalent(package) for execution in held.executions for package in execution.needed}
                needed[held.task.id] = needed.get(held.task.id, frozenset()) | packages
    return needed


def _waits(conversations: Sequence[Held]) -> dict[str, float] | None:
    return report.distribution([execution.wait_ms for held in conversations for execution in held.executions if execution.wait_ms is not None])


# -------------------------------------------------------------------------------------------------------- comparisons


def comparisons(policies: Mapping[str, Figures]) -> list[dict[str, Any]]:
    """Each of ours against the goals, then where a cheaper policy is as good. Every one has ``kind`` (``goal`` or ``tie``), ``policy``, ``figure`` and
    ``sentence``; a goal also ``against``, ``ours``, ``theirs``, ``ratio`` (theirs to ours), ``goal`` and ``met``, a tie ``ours`` and ``ties``
    (policy -> figure). ``met`` is None where a figure is missing, or good only because ours failed tasks that another policy ran."""
    ours = [policy for policy in ("ours", K2) if policy in policies]
    found = [_against(policy, goal, policies) for policy in ours for goal in GOALS if goal.rival in policies]
    return [*found, *(tie for policy in ours for figure in WAITS if (tie := _tie(policy, figure, policies)))]


def _against(policy: str, goal: Goal, policies: Mapping[str, Figures]) -> dict[str, Any]:
    ours, theirs = (_at(policies[each], goal.figure) for each in (policy, goal.rival))
    what, unit = WORDS[goal.figure]
    ratio = met = None
    if ours is None or theirs is None:
        said = f"cannot be said, for {policy if ours is None else goal.rival} has no such figure"
    else:
        least = goal.factor if goal.factor > 1 else 1 / SAME
        met = theirs >= least * ours
        ratio = round(theirs / ours, 2) if ours else None
        said = f"{_shown(ours)} against {_shown(theirs)} {unit}{_counts(goal.figure, policies[policy], policies[goal.rival])}, {_times(ours, theirs)}"
        failed = len(policies[policy]["unserved"])
        if met and failed:  # giving up is quick, and cheap
            met = None
            said += f", without {failed} that it failed and another policy ran"
    aim = f"{goal.factor:g} times better" if goal.factor > 1 else "at least equal"
    verdict = {True: "met", False: "NOT met", None: "open"}[met]
    return {
        "kind": "goal", "policy": policy, "against": goal.rival, "figure": goal.figure, "ours": ours, "theirs": theirs, "ratio": ratio,
        "goal": goal.factor, "met": met, "sentence": f"{policy} against {goal.rival}, {what}: {said}. Goal {aim}: {verdict}.",
    }  # fmt: skip


def _tie(policy: str, figure: str, policies: Mapping[str, Figures]) -> dict[str, Any] | None:
    """The cheaper policies that are as good at ``figure`` as ``policy``, or better; None where there is none."""
    ours = _at(policies[policy], figure)
    if ours is None:
        return None
    cheaper = [each for each in POLICIES[:POLICIES.index(policy)] if each in policies]
    ties = {each: theirs for each in cheaper if (theirs := _at(policies[each], figure)) is not None and theirs <= SAME * ours}
    if not ties:
        return None
    what, unit = WORDS[figure]
    shown = ", ".join(f"{each} {_shown(theirs)}" for each, theirs in ties.items())
    verb = "beats" if SAME * min(ties.values()) < ours else "ties"
    return {
        "kind": "tie", "policy": policy, "figure": figure, "ours": ours, "ties": ties,
        "sentence": f"A cheaper policy {verb} {policy} at {what}: {shown} against {_shown(ours)} {unit}.",
    }  # fmt: skip


def _at(figures: Figures, path: str) -> float | None:
    """The figure at ``path``; None where nothing was measured."""
    value: Any = figures
    for name in path.split("."):
        value = value.get(name) if value is not None else None
    return None if value is None else float(value)


def _times(ours: float, theirs: float) -> str:
    if ours <= SAME * theirs and theirs <= SAME * ours:
        return "equal"
    if not ours or not theirs:
        return "better" if ours < theirs else "worse"
    return f"{theirs / ours:.1f} times better" if ours < theirs else f"{ours / theirs:.1f} times worse"


def _counts(figure: str, ours: Figures, theirs: Figures) -> str:
    """How many waits two quantiles are of."""
    distribution = figure.partition(".")[0]
    if not distribution.endswith("_ms"):
        return ""
    mine, others = ours[distribution]["count"], theirs[distribution]["count"]
    return f" (n {mine})" if mine == others else f" (n {mine} and {others})"


# -------------------------------------------------------------------------------------------------------------- shown


def show(policies: Mapping[str, Figures]) -> RenderableType:
    """``figures`` as one table, a column for each policy."""
    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for policy in policies:
        table.add_column(policy, justify="right", no_wrap=True)
    for name, cells in _rows(policies.values()):
        table.add_row(name, *cells)
    return table


def _rows(policies: Iterable[Figures]) -> list[tuple[str, list[str]]]:
    columns = list(policies)

    def row(name: str, path: str) -> tuple[str, list[str]]:
        return name, [_shown(_at(each, path)) for each in columns]

    def counted(name: str, distribution: str) -> tuple[str, list[str]]:
        found = [each[distribution] for each in columns]
        return name, [f"{_shown(one['p95'])} ({one['count']})" if one else "-" for one in found]

    def count(name: str, of: Callable[[Figures], int]) -> tuple[str, list[str]]:
        return name, [f"{of(each):,}" for each in columns]

    rows = [
        count("tasks", lambda each: each["conversations"]),
        count("ok", lambda each: each["ok"]),
        count("failed what others ran", lambda each: len(each["unserved"])),
        count("waits measured", lambda each: (each["wait_ms"] or {}).get("count", 0)),
        *(row(f"wait {name}, ms", f"wait_ms.{name}") for name in ("p50", "p95", "p99", "max")),
        counted("p95 outside the twenty (n)", "wait_outside_twenty_ms"),
        counted("p95 within the base (n)", "wait_within_base_ms"),
        *((f"served {tier}", [f"{each['tiers'].get(tier, 0):,}" for each in columns]) for tier in report.TIERS),
        row("lead time p50, ms", "lead_ms.p50"),
        count("builds", lambda each: each["builds"]),
        ("  wasted", ["-" if each["wasted_share"] is None else f"{each['wasted_share']:.0%}" for each in columns]),
        row("memory held, GiB s", "memory_gib_seconds"),
        row("  wasted, GiB s", "wasted_memory_gib_seconds"),
    ]
    if any(each["k2"] for each in columns):
        rows.append(("K2: asked/answered/failed", [_calls(each["k2"]) for each in columns]))
    return [*rows, row("took, s", "seconds")]


def _calls(k2: dict[str, Any] | None) -> str:
    return f"{k2['asked']}/{k2['answered']}/{k2['failed']}" if k2 else "-"


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}" if value >= 1 or not value else f"{value:.2f}"
