"""All measures in order: ours one by one, then the peers, while nothing else of ours runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ephemeral_sandboxd import host
from ephemeral_sandboxd.bench import catalogue, composing, crowd, machine, peers, sandboxes
from ephemeral_sandboxd.bench.figures import Figures
from ephemeral_sandboxd.bench.place import Place, Progress, open_place, reasons


@dataclass(frozen=True)
class Part:
    """``measures`` are the figures that ``work`` brings."""

    what: str
    measures: tuple[str, ...]
    work: Callable[[Place, Figures], Awaitable[None]]


PARTS = (
    Part("composition", ("compose_ms",), composing.compositions),
    Part("executions, live and frozen", ("exec_live_ms", "exec_frozen_ms"), sandboxes.executions),
    Part("restores", ("restore_ms",), sandboxes.restores),
    Part("boots", ("boot_ms",), sandboxes.boots),
    Part("teardowns", ("teardown_ms",), sandboxes.teardowns),
    Part("checkpoints", ("checkpoint_ms",), sandboxes.checkpoints),
    Part("boot, mount, import", ("environment_ms",), sandboxes.environments),
    Part("idle sandboxes", ("idle_pss_mb", "idle_cpu_percent"), sandboxes.idleness),
    Part("starts", ("starts_per_second_per_core",), sandboxes.rates),
    Part("many sessions", ("sessions2000_mb", "burst100_ms"), crowd.crowds),
    Part("ours, the peers' programs", ("peers.ephemeral_restore_ms", "peers.ephemeral_live_ms"), peers.ours),
    Part("peers", ("peers",), peers.theirs),
)


async def measure(store: Path, *, quick: bool, only: Sequence[str], with_peers: bool, progress: Progress) -> dict[str, Any]:
    """The result: every figure under its name, ``machine``, ``quick``. Raises SandboxdError where nothing can be measured at all."""
    entries = catalogue.selected(only, peers=with_peers)
    figures = Figures(entries)
    facts = await machine.facts(host.parts(store))
    async with open_place(store, quick=quick, progress=progress) as place:
        parts = [part for part in PARTS if any(figures.wanted(name) for name in part.measures)]
        for number, part in enumerate(parts):
            progress(part.what, number, len(parts))
            place.progress = partial(_within, progress, part.what, number, len(parts))
            with reasons(figures, *part.measures):
                await part.work(place, figures)
        progress("done", len(parts), len(parts))
        return {**figures.result(), "machine": {**facts, "engine": place.engine}, "quick": quick}


def _within(progress: Progress, part: str, number: int, parts: int, what: str, done: int, total: int) -> None:
    """What a part says of itself, at its place in the whole."""
    progress(f"{part}: {what}{f' {done}/{total}' if total > 1 else ''}", number, parts)
