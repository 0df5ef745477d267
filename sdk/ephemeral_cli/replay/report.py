"""What a set of conversations came to: distributions, tiers, builds, memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ephemeral import wire
from ephemeral_cli.replay.conversation import Held

QUANTILES = (50, 95, 99)
TIERS = ("live", "partial", "snapshot", "environment", "wheels", "cold")


def quantile(values: Sequence[float], percent: float) -> float:
    """The smallest of ``values`` that at least ``percent`` % of them do not exceed (nearest rank). Raises ValueError when
    there are none."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def distribution(values: Sequence[float]) -> dict[str, float] | None:
    """``{"count", "p50", "p95", "p99", "max"}``; None without values."""
    if not values:
        return None
    return {"count": len(values), **{f"p{percent}": round(quantile(values, percent), 2) for percent in QUANTILES}, "max": round(max(values), 2)}


def summary(conversations: Sequence[Held], strays: Sequence[wire.Session] = ()) -> dict[str, Any]:
    """The figures of ``conversations``: milliseconds where a name ends in ``_ms``, GiB-seconds of memory.

    ``wait_ms`` and the rest are over executions, ``first_delta_ms`` over conversations; ``wait_by_tier_ms`` splits it. What was built and held
    for ``strays``, sessions that no conversation's code was found to belong to, counts with the rest.
    """
    executions = [execution for held in conversations for execution in held.executions]
    sessions = [*(held.session for held in conversations if held.session), *strays]
    waits = {tier: [e.wait_ms for e in executions if e.tier == tier and e.wait_ms is not None] for tier in TIERS}
    return {
        "conversations": len(conversations),
        "ok": sum(held.ok for held in conversations),
        "broken": sum(bool(held.outcome.error) for held in conversations),
        "executions": len(executions),
        "verdicts": dict(Counter(str(execution.verdict) for execution in executions)),
        "tiers": {tier: len(found) for tier, found in waits.items() if found},
        "wait_ms": distribution([e.wait_ms for e in executions if e.wait_ms is not None]),
        "wait_by_tier_ms": {tier: distribution(found) for tier, found in waits.items() if found},
        "run_ms": distribution([e.run_ms for e in executions if e.run_ms is not None]),
        "lead_ms": distribution([e.lead_ms for e in executions if e.lead_ms is not None]),
        "first_delta_ms": distribution([held.outcome.first_ms for held in conversations if held.outcome.first_ms is not None]),
        "late_imports": sum(bool(execution.late_imports) for execution in executions),
        "builds": sum(session.builds for session in sessions),
        "wasted": sum(session.wasted for session in sessions),
        "memory_gib_seconds": round(sum(session.memory_seconds for session in sessions), 2),
        "wasted_memory_gib_seconds": round(sum(session.memory_seconds for session in sessions if not session.executions), 2),
        "strays": len(strays),
    }


def details(held: Held) -> dict[str, Any]:
    """One conversation, for ``--json``: figures only, no text of it."""
    execution = held.execution
    return {
        "id": held.task.id, "ok": held.ok, "error": held.outcome.error, "first_delta_ms": held.outcome.first_ms,
        "session": held.session.id if held.session else None, "predicted": execution.predicted if execution else held.predicted,
        "builds": held.session.builds if held.session else 0, "wasted": held.session.wasted if held.session else 0,
        "executions": [
            {"tier": e.tier, "verdict": e.verdict, "wait_ms": e.wait_ms, "run_ms": e.run_ms, "lead_ms": e.lead_ms, "needed": e.needed,
             "predicted": e.predicted, "missing": e.missing, "late_imports": e.late_imports, "stages": e.stages.model_dump(exclude_defaults=True),
             "found_by": e.found_by}
            for e in held.executions
        ],
    }


def show(figures: dict[str, Any]) -> RenderableType:
    """``summary``'s figures as tables."""
    table = Table(box=None, pad_edge=False)
    table.add_column("milliseconds")
    for name in ("count", *(f"p{percent}" for percent in QUANTILES), "max"):
        table.add_column(name, justify="right")
    rows = [("wait", figures["wait_ms"])]
    rows += [(f"  served {tier}", found) for tier, found in figures["wait_by_tier_ms"].items()]
    rows += [("run", figures["run_ms"]), ("lead time", figures["lead_ms"]), ("first delta", figures["first_delta_ms"])]
    for name, found in rows:
        if found:
            table.add_row(name, *(f"{value:,.0f}" if key == "count" or value >= 100 else f"{value:,.1f}" for key, value in found.items()))
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in figures["verdicts"].items()) or "none"
    lines = [
        f"conversations {figures['conversations']}, ok {figures['ok']}, broken off {figures['broken']}",
        f"executions {figures['executions']} ({verdicts})",
        f"builds {figures['builds']}, wasted {figures['wasted']}; memory {figures['memory_gib_seconds']} GiB-seconds",
    ]
    return Group(table, Text(""), Text("\n".join(lines)))
