"""What keeps a daemon fit for months: the store and the snapshots within their disk budgets, the wheels checked, the ledger pruned.

All of it is work for quiet times, queued here and done by IdleWork.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

from ephemeral import settings
from ephemeral_sandboxd.pool.fleet import Fleet
from ephemeral_sandboxd.pool.idle import IdleWork
from ephemeral_sandboxd.pool.notes import Notes
from ephemeral_sandboxd.pool.stock import Stocks

log = logging.getLogger(__name__)

MEASURE_EVERY_SECONDS = 60.0
PRUNE_EVERY_SECONDS = 3600.0


@dataclass(frozen=True)
class Disk:
    """What the store and the snapshots take together, and what they may."""

    bytes: int = 0
    budget_bytes: int = 0


class Upkeep:
    def __init__(self, stocks: Stocks, fleet: Fleet, notes: Notes, idle: IdleWork):
        self._stocks = stocks
        self._fleet = fleet
        self._notes = notes
        self._idle = idle
        self.usage = Disk()
        self._measured = float("-inf")
        self._pruned = time.monotonic()
        self._scrubbed = False

    def tick(self) -> None:
        """Called once a second: queues what is due."""
        now = time.monotonic()
        if now - self._measured > MEASURE_EVERY_SECONDS:
            self._measured = now
            self._idle.add("disk budget", self.keep_budget)
        if now - self._pruned > PRUNE_EVERY_SECONDS:
            self._pruned = now
            self._idle.add("prune", self._notes.prune)
        if not self._scrubbed:
            self._scrubbed = True
            self._idle.add("check of the wheels", self._stocks.default.environments.scrub)  # of all Pythons: they share one store

    async def keep_budget(self) -> None:
        """Measure the disk, and drop what was used longest ago where it is over a budget: never what is mounted, pinned or the base."""
        mounted = {environment for sandbox in self._fleet.all() for environment in sandbox.environments}
        used = 0
        for stock in self._stocks:
            used += await asyncio.to_thread(stock.snapshots.trim, settings.get("snapshot_budget_bytes"), {sandbox.started_from for sandbox in self._fleet.all()})
        environments = self._stocks.default.environments
        usage = await environments.usage()
        if usage.budget_bytes and usage.total_bytes > usage.budget_bytes:
            # Each lets go of its own compositions only, so each is asked.
            freed = sum([(await stock.environments.evict(mounted)).freed_bytes for stock in self._stocks])
            log.info("the store was over its budget: %d MiB given back", freed >> 20)
            usage = await environments.usage()
        self.usage = Disk(used + usage.total_bytes, usage.budget_bytes)
