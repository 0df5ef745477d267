"""The proxy bench's result as the tables a person reads: what each target costs, and what of the goals is met."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ephemeral_cli.bench.table import machine, number

TARGETS = ("direct", "ephemeral", "mitmdump", "litellm")
ROWS = (
    ("time to first token, p50", ("ttft_ms", "p50"), "ms"),
    ("added to it, p50", ("added_ttft_ms", "p50"), "ms"),
    ("added to it, p99", ("added_ttft_ms", "p99"), "ms"),
    ("added to a delta, p50", ("added_chunk_ms", "p50"), "ms"),
    ("answers a second, 32 connections", ("rps32",), "1/s"),
    ("answers a second, 256 connections", ("rps256",), "1/s"),
    ("the same on all cores, 32", ("all_cores", "rps32"), "1/s"),
    ("the same on all cores, 256", ("all_cores", "rps256"), "1/s"),
    ("memory before", ("rss_mb_start",), "MB"),
    ("memory after", ("rss_mb_end",), "MB"),
    ("streams between", ("streams",), ""),
)
"""What it is called, where it is in a target's part of the result, its unit."""


def show_all(console: Console, result: Mapping[str, Any]) -> None:
    """The machine, the figures, the goals, the remarks."""
    console.print(machine(result), highlight=False, markup=False, soft_wrap=True)
    console.print(figures(result))
    if result["goals"]:
        console.print(goals(result))
    for line in remarks(result):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def figures(result: Mapping[str, Any]) -> Table:
    """A row for each figure that any target has, a column for each target."""
    table = _table("measure")
    targets = [name for name in TARGETS if name in result]
    for name in targets:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    for what, path, unit in ROWS:
        values = [_at(result[name], *path) for name in targets]
        if any(value is not None for value in values):
            table.add_row(what, *("-" if value is None else number(value) for value in values), unit)
    return table


def goals(result: Mapping[str, Any]) -> Table:
    """A row for each goal, with what was reached."""
    table = _table("goal")
    for name in ("reached", "wanted"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for goal in result["goals"]:
        wanted = f"≥ {goal['least']:,g}" if "least" in goal else f"≤ {goal['most']:,g}"
        table.add_row(goal["measure"], number(goal["value"]), wanted, "[green]met[/]" if goal["met"] else "[red]not met[/]")
    return table


def remarks(result: Mapping[str, Any]) -> list[str]:
    """What is said below the tables."""
    lines = []
    met = [goal["met"] for goal in result["goals"]]
    if met:
        lines.append(f"{sum(met)} of {len(met)} goals met{' (with few samples: --quick)' if result.get('quick') else ''}")
    if same := result.get("byte_identical"):
        lines.append(f"byte for byte the same: {same['identical']:,} of {same['checked']:,} requests and answers through ephemeral")
    if events := _at(result, "ephemeral", "events"):
        unread = _at(result, "ephemeral", "health", "copies_dropped")
        lines.append(f"events of ephemeral: {', '.join(f'{count:,} {what}' for what, count in events.items() if count is not None)}"
                     + (f"; {unread:,} copies of traffic dropped unread" if unread else ""))
    for name in TARGETS:
        part = result.get(name, {})
        if "missing" in part:
            lines.append(f"missing: {name}: {part['missing']}")
        if "failed" in part:
            lines.append(f"failed: {name}: {', '.join(f'{count:,} × {verdict}' for verdict, count in part['failed'].items())}")
        if "command" in part:
            lines.append(f"{name} {part['version']}: {part['command']}")
    return lines + [f"{name}: {sentence}" for name, sentence in result["how"].items()]


def _table(first: str) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(first, overflow="fold")
    return table


def _at(part: Mapping[str, Any], *path: str) -> Any:
    """None for what was not measured."""
    place: Any = part
    for name in path:
        place = place.get(name) if isinstance(place, Mapping) else None
    return place
