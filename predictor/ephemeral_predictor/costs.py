"""What things cost on the host that the sandboxes stand on: asked of sandboxd at the start and once a minute, never waited for."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from pydantic import ValidationError

from ephemeral.costs import PRIORS, completed
from ephemeral.wire import Costs
from ephemeral_predictor.sandboxd import Sandboxd

log = logging.getLogger(__name__)

PERIOD_SECONDS = 60.0
STALE_SECONDS = 600.0
_SECONDS = 5.0  # for one answer
_AGAIN_SECONDS = 5.0  # where there was none: sandboxd may be starting still


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


def _read(answer: Any) -> Costs | None:
    """None where the answer is none of ours."""
    try:
        return Costs.model_validate(answer)
    except ValidationError as problem:
        log.warning("sandboxd's costs cannot be read: %s", problem.errors(include_input=False, include_url=False)[:1])
        return None
