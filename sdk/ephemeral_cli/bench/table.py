"""The sandbox bench's result as the table a person reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

STATISTICS = ("min", "p50", "p99")


def show_all(console: Console, result: Mapping[str, Any]) -> None:
    """The machine, the figures, the remarks."""
    console.print(machine(result), highlight=False, markup=False, soft_wrap=True)
    console.print(show(result))
    for line in remarks(result):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def measures(result: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every figure of ``result`` with its dotted name, in order."""
    for name, value in result.items():
        if isinstance(value, dict) and "n" in value:
            yield f"{prefix}{name}", value
        elif isinstance(value, dict) and name != "machine":
            yield from measures(value, f"{prefix}{name}.")


def machine(result: Mapping[str, Any]) -> str:
    """One line: what was measured on."""
    facts = result["machine"]
    sandboxes = f", cgroups v{facts['cgroup_version']}, runsc {facts['runsc']}" if "runsc" in facts else ""
    engine = f", Docker {facts['engine']}" if facts.get("engine") else ""
    load = " ".join(f"{value:g}" for value in facts["load_average"])
    return (f"{facts['cores']} cores ({facts['model']}), {facts['memory_bytes'] / (1 << 30):.1f} GiB, Linux {facts['kernel']}{sandboxes}{engine}; "
            f"load before {load}; {facts['date']}")


def show(result: Mapping[str, Any]) -> Table:
    """A row for each figure; ``p99`` is marked where it is the largest of fewer than 100 samples."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("measure", overflow="fold")
    for name in ("n", *STATISTICS):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    table.add_column("goal", no_wrap=True)
    table.add_column("")
    for name, figure in measures(result):
        if not figure["n"]:
            table.add_row(name, "-", *("-" for _ in STATISTICS), figure["unit"], _goal(figure), "[yellow]missing[/]")
            continue
        p99 = f"{number(figure['p99'])}{'*' if figure.get('p99_is') == 'max' else ''}"
        table.add_row(name, str(figure["n"]), number(figure["min"]), number(figure["p50"]), p99, figure["unit"], _goal(figure), _verdict(figure))
    return table


def remarks(result: Mapping[str, Any]) -> list[str]:
    """What is said below the table."""
    found = dict(measures(result))
    lines = ["* the largest: fewer than 100 samples have no 99th percentile"] if any("p99_is" in figure for figure in found.values()) else []
    goals = [figure["met"] for figure in found.values() if "met" in figure]
    if goals:
        lines.append(f"{sum(goals)} of {len(goals)} goals met{' (with few samples: --quick)' if result.get('quick') else ''}")
    reasons: dict[str, list[str]] = {}
    for name, figure in found.items():
        if "missing" in figure:
            reasons.setdefault(figure["missing"], []).append(name)
    return lines + [f"missing: {', '.join(names)}: {reason}" for reason, names in reasons.items()]


def number(value: float) -> str:
    """Three figures or so: what a person can compare."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _goal(figure: Mapping[str, Any]) -> str:
    return ", ".join(f"{statistic} ≤ {most:g}" for statistic, most in figure.get("goal", {}).items()) or ""


def _verdict(figure: Mapping[str, Any]) -> str:
    failed = f" [red]{figure['failed']} failed[/]" if figure.get("failed") else ""
    if "met" not in figure:
        return failed.strip()
    return ("[green]met[/]" if figure["met"] else "[red]not met[/]") + failed
