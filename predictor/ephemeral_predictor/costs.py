"""What things cost on the host that the sandboxes stand on: asked of sandboxd at the start and once a minute, never waited for."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from pydantic import ValidationError

from ephemeral.wire import Costs, Figure, ModuleCosts
from ephemeral_predictor.sandboxd import Sandboxd

log = logging.getLogger(__name__)

PERIOD_SECONDS = 60.0
STALE_SECONDS = 600.0
_SECONDS = 5.0  # for one answer
_AGAIN_SECONDS = 5.0  # where there was none: sandboxd may be starting still


def _module(import_ms: float, mebibytes: float) -> ModuleCosts:
    return ModuleCosts(import_ms=Figure(value=import_ms), memory_bytes=Figure(value=mebibytes * (1 << 20)))


PRIORS = Costs(
    boot_ms=Figure(value=400.0),
    restore_ms=Figure(value=300.0),
    import_ms=Figure(value=600.0),
    memory_bytes=Figure(value=60 << 20),
    fetch_ms=Figure(value=3000.0),
    until_used_seconds=Figure(value=10.0),
    until_ended_seconds=Figure(value=300.0),
    modules={
        "PIL": _module(170, 3),
        "cv2": _module(600, 6),
        "duckdb": _module(400, 14),
        "matplotlib": _module(1700, 29),
        "networkx": _module(750, 13),
        "numpy": _module(330, 7),
        "pandas": _module(1100, 30),
        "polars": _module(800, 19),
        "scipy": _module(2100, 48),
        "sklearn": _module(7400, 63),
        "sympy": _module(1900, 39),
        "torch": _module(8400, 203),
    },
)
"""Until the host has said what it measured. Source: the snapshots of a virtual machine with two shared cores (gVisor, systrap), each compared with
the one that lacks only this module; an import includes the package's first use. A module that is not in the table is taken to be a middling one.
The last two are what the conversations of our own replay showed, and the time after which a silent session ends."""


class CostSource:
    """``costs`` is what to reckon with now; ``memory_budget_bytes`` what all sandboxes may hold together, None while nobody knows."""

    def __init__(self, client: Sandboxd, period_seconds: float = PERIOD_SECONDS) -> None:
        self._client = client
        self._period_seconds = period_seconds
        self._costs: Costs | None = None
        self._at = 0.0
        self.memory_budget_bytes: int | None = None

    @property
    def costs(self) -> Costs:
        """What sandboxd said last, or PRIORS where that is none, or ten minutes old."""
        if self._costs is None or time.monotonic() - self._at > STALE_SECONDS:
            return PRIORS
        return self._costs

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            answered = await self.poll()
            await asyncio.sleep(self._period_seconds if answered else min(_AGAIN_SECONDS, self._period_seconds))

    async def poll(self) -> bool:
        """Ask now. Whether there was an answer: an older sandboxd has none."""
        answer = await self._client.get("/v1/costs", _SECONDS)
        host = await self._client.get("/v1/host", _SECONDS)
        budget = host.get("memory_budget_bytes") if isinstance(host, dict) else None
        if isinstance(budget, int) and budget > 0:
            self.memory_budget_bytes = budget
        if answer is None:
            return False
        if costs := _read(answer):
            self._costs, self._at = completed(costs), time.monotonic()
        return True


def completed(costs: Costs) -> Costs:
    """``costs`` with PRIORS wherever the host has not measured anything."""
    known = {name: getattr(costs, name) for name in type(costs).model_fields if name != "modules"}
    figures = {name: said if said.n else getattr(PRIORS, name) for name, said in known.items()}
    modules = dict(PRIORS.modules)
    for name, said in costs.modules.items():
        prior = modules.get(name)
        memory = said.memory_bytes if said.memory_bytes.n else prior.memory_bytes if prior else figures["memory_bytes"]
        modules[name] = ModuleCosts(import_ms=said.import_ms, memory_bytes=memory)
    return Costs(**figures, modules=modules)


def _read(answer: Any) -> Costs | None:
    """None where the answer is none of ours."""
    try:
        return Costs.model_validate(answer)
    except ValidationError as problem:
        log.warning("sandboxd's costs cannot be read: %s", problem.errors(include_input=False, include_url=False)[:1])
        return None
