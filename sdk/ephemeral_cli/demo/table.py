"""The demo's figures: as ``build/demo.json``, and as the table a person reads."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ephemeral_cli.demo.rivals import Rivals
from ephemeral_cli.replay import report
from ephemeral_cli.replay.conversation import Held

RIVAL_FIELDS = {"cold_ms": "none", "cold_cached_ms": "cached", "fat_snapshot_ms": "fat-snapshot"}


def row(held: Held, rivals: Rivals) -> dict[str, Any]:
    """One task's figures. Milliseconds; None where there is nothing to tell. ``*_at``: when a rival's figure was measured,
    for those that this run did not measure."""
    execution = held.execution
    fields: dict[str, Any] = {
        "name": held.task.id,
        "needed": execution.needed if execution else [],
        "predicted": execution.predicted if execution else held.predicted,
        "tier": execution.tier if execution else None,
        "lead_ms": execution.lead_ms if execution else None,
        "wait_ms": execution.wait_ms if execution else None,
        "run_ms": execution.run_ms if execution else None,
    }
    remembered: dict[str, float] = {}
    for name, policy in RIVAL_FIELDS.items():
        figure = rivals.figure(held.task, policy)  # type: ignore[arg-type]
        fields[name] = round(figure.ms, 1) if figure else None
        if figure and not figure.now:
            remembered[f"{name.removesuffix('_ms')}_at"] = figure.at
    return {
        **fields, "ok": held.ok, **remembered,
        "verdict": execution.verdict if execution else None,
        "missing": execution.missing if execution else [],
        "found_by": execution.found_by if execution else None,
        "builds": held.session.builds if held.session else 0,
        "wrapped": held.task.wrapped,
        "error": held.outcome.error or (execution.error if execution else None),
    }


def figures(conversations: Sequence[Held], rivals: Rivals, **facts: Any) -> dict[str, Any]:
    """What goes to ``build/demo.json``: ``{"tasks": [...], "summary": {...}}``."""
    rows = [row(held, rivals) for held in conversations]
    live = [entry["wait_ms"] for entry in rows if entry["tier"] == "live" and entry["wait_ms"] is not None]
    summary = {
        **facts,
        **report.summary(conversations),
        "live": len(live),
        "live_with_packages": sum(entry["tier"] == "live" and bool(entry["needed"]) for entry in rows),
        "median_live_wait_ms": round(report.quantile(live, 50), 2) if live else None,
    }
    for name in RIVAL_FIELDS:
        found = [entry[name] for entry in rows if entry[name] is not None]
        summary[f"median_{name}"] = round(report.quantile(found, 50), 1) if found else None
    ours = [entry["wait_ms"] + entry["run_ms"] for entry in rows if entry["wait_ms"] is not None and entry["run_ms"] is not None]
    summary["median_ours_ms"] = round(report.quantile(ours, 50), 1) if ours else None
    return {"tasks": rows, "summary": summary}


def show(demo: dict[str, Any]) -> Table:
    """The table. Ours is wait and run; the rivals' columns are both together."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, title="milliseconds; cold, cold cached and fat snapshot are wait + run of the same code without us",
                  title_justify="left", title_style="dim")
    table.add_column("task", no_wrap=True)
    for name in ("predicted", "needed"):
        table.add_column(name, overflow="fold")
    table.add_column("tier", no_wrap=True)
    for name in ("lead", "wait", "run", "cold", "cold\ncached", "fat\nsnapshot"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("ok")
    for entry in demo["tasks"]:
        rivals = [_milliseconds(entry[name]) + ("*" if f"{name.removesuffix('_ms')}_at" in entry else "") for name in RIVAL_FIELDS]
        table.add_row(
            entry["name"], _names(entry["predicted"]), _names(entry["needed"]), entry["tier"] or "-",
            *(_milliseconds(entry[name]) for name in ("lead_ms", "wait_ms", "run_ms")), *rivals,
            "[green]ok[/]" if entry["ok"] else "[red]failed[/]",
        )
    return table


def remarks(demo: dict[str, Any]) -> list[str]:
    """What is said below the table."""
    summary = demo["summary"]
    lines = [
        f"{summary['ok']} of {summary['conversations']} ok; {summary['live']} served live ({summary['live_with_packages']} of them with packages), "
        f"median live wait {_milliseconds(summary['median_live_wait_ms'])} ms; builds {summary['builds']}, wasted {summary['wasted']}; "
        f"memory {summary['memory_gib_seconds']} GiB-seconds",
        f"median of wait + run: ours {_milliseconds(summary['median_ours_ms'])}, cold {_milliseconds(summary['median_cold_ms'])}, "
        f"cold cached {_milliseconds(summary['median_cold_cached_ms'])}, fat snapshot {_milliseconds(summary['median_fat_snapshot_ms'])} ms",
    ]
    dates = [entry[key] for entry in demo["tasks"] for key in ("cold_at", "cold_cached_at", "fat_snapshot_at") if key in entry]
    if dates:
        days = sorted({time.strftime("%Y-%m-%d", time.localtime(at)) for at in dates})
        lines.append(f"* measured by an earlier run on this machine ({days[0]}{' to ' + days[-1] if len(days) > 1 else ''}); --all-rivals measures all again")
    lines += [f"{entry['name']} failed: {entry['error'] or _why(entry)}" for entry in demo["tasks"] if not entry["ok"]]
    return lines


def _why(entry: dict[str, Any]) -> str:
    if entry["verdict"] is None:
        return f"nothing ran (builds: {entry['builds']})"
    return f"verdict {entry['verdict']}" if entry["verdict"] != "ok" else "the output was not what it should be"


def _names(packages: Sequence[str]) -> str:
    return "\n".join(packages) or "-"


def _milliseconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
