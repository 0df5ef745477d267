"""What stands ready, what the host can afford, and what the session's code did so far: a few lines for K2.

Names of packages that only the operator knows (a private index) stay here: only what the public index has is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ephemeral import names
from ephemeral_predictor.sandboxd import Sandboxd

_SECONDS = 0.2  # what does not come as quickly is left out
_EXECUTIONS = 8
_BASE, _COMPOSED, _CACHED, _SNAPSHOTS = 150, 60, 100, 30  # names, or lines, of each
_GIB = 1 << 30


@dataclass(frozen=True)
class Inventory:
    """``lines`` for the prompt. No answer may ask for more than the bounds, where they are known."""

    lines: tuple[str, ...] = ()
    memory_bytes: int | None = None
    cpus: float | None = None


async def take(sandboxd: Sandboxd, session: str) -> Inventory:
    """Ask sandboxd; whatever of it does not answer at once is not in it."""
    host, snapshots, environments, sandboxes, executions = await asyncio.gather(
        sandboxd.get("/v1/host", _SECONDS),
        sandboxd.get("/v1/snapshots", _SECONDS),
        sandboxd.get("/v1/environments", _SECONDS),
        sandboxd.get("/v1/sandboxes", _SECONDS),
        sandboxd.get(f"/v1/executions?session={quote(session)}&limit={_EXECUTIONS}", _SECONDS),
    )
    lines: list[str] = []
    host = host if isinstance(host, dict) else {}
    budget, used = _number(host, "memory_budget_bytes"), _number(host, "memory_used_bytes")
    cpus = _number(host, "cpu_budget") or _number(host, "cores")
    if host:
        waiting = f", {_number(host, 'waiting'):.0f} sessions wait for memory" if _number(host, "waiting") else ""
        lines.append(f"Host: {cpus:g} CPUs, {max(0.0, budget - used) / _GIB:.1f} GiB free for sandboxes of {budget / _GIB:.1f}{waiting}")
        _listed(lines, "Importable without a download", _public(_names(host, "base_packages")), _BASE, ", ")
    lines += _environments(_items(environments))
    warm = sorted({" ".join(_imported(item)) for item in _items(snapshots)} - {""})
    _listed(lines, "Snapshots with these modules imported, restored in a fraction of a second", warm, _SNAPSHOTS, "; ")
    lines += _sandboxes(_items(sandboxes), session)
    lines += _executions(_items(executions))
    return Inventory(tuple(lines), int(budget) or None, cpus or None)


def _environments(environments: list[dict[str, Any]]) -> list[str]:
    lines: list[str] = []
    composed: dict[str, None] = {}
    cached: dict[str, None] = {}
    for environment in environments:
        if not environment.get("base"):
            composed.update(dict.fromkeys(_public(name.partition("==")[0] for name in _names(environment, "requested"))))
            packages = environment.get("packages")
            cached.update(dict.fromkeys(_public(packages if isinstance(packages, dict) else ())))
    _listed(lines, "Composed, mounted in milliseconds", sorted(composed), _COMPOSED, ", ")
    _listed(lines, "Downloaded", sorted(cached.keys() - composed.keys()), _CACHED, ", ")
    return lines


def _sandboxes(sandboxes: list[dict[str, Any]], session: str) -> list[str]:
    lines = []
    own = next((item for item in sandboxes if item.get("session") == session), None)
    if own:
        imported = ", ".join(_imported(own)[:40]) or "nothing"
        lines.append(
            f"This conversation's sandbox: {_word(own, 'state')}, {_mib(own, 'memory_bytes')} MiB of {_mib(own, 'memory_limit_bytes')}, "
            f"{_number(own, 'cpus'):g} CPUs, {_number(own, 'executions'):.0f} executions, imported: {imported}"
        )
    if sandboxes:
        spare = sum(item.get("state") == "spare" for item in sandboxes)
        lines.append(f"Sandboxes of others: {len(sandboxes) - spare - bool(own)}; spare: {spare}")
    return lines


def _executions(executions: list[dict[str, Any]]) -> list[str]:
    """Latest first. Numbers and names of public packages: nothing that the code printed."""
    lines = []
    for execution in executions[:_EXECUTIONS]:
        used = ", ".join(_public(_names(execution, "needed"))[:20]) or "no package"
        peak = f", peak {_mib(execution, 'peak_memory_bytes')} MiB" if _number(execution, "peak_memory_bytes") else ""
        ran = f", ran {_number(execution, 'run_ms') / 1000:.1f} s" if _number(execution, "run_ms") else ""
        lines.append(f"- {_word(execution, 'verdict') or _word(execution, 'state')}, tier {_word(execution, 'tier')}{peak}{ran}, used {used}")
    return ["This conversation's executions so far, latest first:\n" + "\n".join(lines)] if lines else []


def _listed(lines: list[str], title: str, found: list[str], most: int, separator: str) -> None:
    if found:
        lines.append(f"{title}: " + separator.join(found[:most]))


def _public(packages: Iterable[str]) -> list[str]:
    return [name for name in packages if names.rank(name) is not None]


def _imported(item: dict[str, Any]) -> list[str]:
    """Modules that belong to public packages; private helpers of theirs are left out."""
    return [module for module in _names(item, "modules") if names.package_for(module) and not module.split(".")[-1].startswith("_")]


def _items(page: Any) -> list[dict[str, Any]]:
    items = page.get("items") if isinstance(page, dict) else None
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _names(record: dict[str, Any], name: str) -> list[str]:
    value = record.get(name)
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _number(record: dict[str, Any], name: str) -> float:
    value = record.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def _mib(record: dict[str, Any], name: str) -> int:
    return int(_number(record, name)) >> 20


def _word(record: dict[str, Any], name: str) -> str:
    value = record.get(name)
    return value if isinstance(value, str) else ""
