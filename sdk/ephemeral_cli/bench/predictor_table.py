"""The predictor bench's result as the tables a person reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ephemeral_cli.bench.table import machine, number

SHARES = ("hit", "recall", "precision", "covered", "tail_hit", "negatives_empty", "calibration_error")
COLUMNS = {
    "hit": "hit", "recall": "recall", "precision": "precision", "mean_size": "size", "covered": "covered", "tail_hit": "tail hit",
    "negatives_empty": "negatives empty", "calibration_error": "calibration error", "n": "n", "ms_p50": "ms p50", "ms_p99": "ms p99",
}
"""A figure's name in the result, and over its column."""


def show_all(console: Console, result: Mapping[str, Any]) -> None:
    """The machine; a table for each file, and the macro average of several; the remarks."""
    console.print(machine(result), highlight=False, markup=False, soft_wrap=True)
    for name, part in parts(result).items():
        console.print(figures(name, part))
    for line in remarks(result):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def parts(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What has figures of its own: each file, and the macro average of several."""
    if "files" not in result:
        return {str(result["file"]): result}
    return {**result["files"], "macro average": result["macro"]}


def figures(name: str, part: Mapping[str, Any]) -> Table:
    """A row for each moment of the combined prediction and of each step."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, title=escape(name), title_justify="left", title_style="bold")
    table.add_column("", no_wrap=True)
    for column in COLUMNS.values():
        table.add_column(column, justify="right")
    for what, row in rows(part):
        table.add_row(what, *(_cell(figure, row[figure]) for figure in COLUMNS))
    return table


def rows(part: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The moments of ``part``, each with what it is called."""
    for step, moments in {"": part["combined"], **part["steps"]}.items():
        before = f"{step}, " if step else ""
        yield f"{before}prompt only", moments["prompt_only"]
        for fraction, row in moments.get("with_code", {}).items():
            yield f"{before}{float(fraction):.0%} of code", row


def remarks(result: Mapping[str, Any]) -> list[str]:
    """What is said below the tables."""
    lines = []
    for name, file in (result.get("files") or {result.get("file"): result}).items():
        read = file["records"]
        if read["bad_lines"]:
            lines.append(f"{name}: {read['bad_lines']:,} lines could not be used: {'; '.join(read['bad'][:3])}")
        if read["unknown_packages"]:
            lines.append(f"{name}: packages that nobody knows: {', '.join(read['unknown_packages'])}")
    for what, names in result.get("macro", {}).get("left_out", {}).items():
        if names:
            lines.append(f"too few {what} to count in the macro average: {', '.join(names)}")
    if "k2" in result:
        lines.append(f"K2: {', '.join(f'{count:,} {what}' for what, count in result['k2'].items())}")
    return lines + [f"{name}: {sentence}" for name, sentence in result["definitions"].items()]


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if name == "n":
        return f"{value:,}"
    return f"{value:.3f}" if name in SHARES else number(value)
