"""Work for quiet times: snapshots for the next session that wants the same, byte-compilation of what was fetched in a hurry.

It competes for the cores that executions need, so it is done one job at a time and only after nothing else ran for a while.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from ephemeral.tasks import Tasks
from ephemeral_sandboxd.errors import SandboxdError

log = logging.getLogger(__name__)

QUIET_SECONDS = 2.0
PATIENT_SECONDS = 900.0
"""A house that is never quiet does its work all the same, a job at a time: its disk has a budget then, too."""


class IdleWork:
    """A queue of jobs by key; the same key is queued once."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, tuple[float, Callable[[], Awaitable[object]]]] = OrderedDict()
        self._running: asyncio.Task[None] | None = None
        self._last_busy = time.monotonic()
        self._tasks = Tasks()

    def add(self, key: str, job: Callable[[], Awaitable[object]]) -> None:
        self._jobs.setdefault(key, (time.monotonic(), job))

    @property
    def empty(self) -> bool:
        return not self._jobs and (self._running is None or self._running.done())

    def tick(self, busy: bool) -> None:
        """Called about once a second; ``busy``: code runs, or something is being built for a session."""
        now = time.monotonic()
        if busy:
            self._last_busy = now
        if not self._jobs or not (self._running is None or self._running.done()):
            return
        first_since, _ = next(iter(self._jobs.values()))
        if now - self._last_busy > QUIET_SECONDS or now - first_since > PATIENT_SECONDS:
            key, (_, job) = self._jobs.popitem(last=False)
            self._running = self._tasks.start(self._do(key, job), key)

    async def _do(self, key: str, job: Callable[[], Awaitable[object]]) -> None:
        try:
            await job()
        except (SandboxdError, OSError) as problem:
            log.warning("%s: %s", key, problem)

    async def close(self) -> None:
        self._jobs.clear()
        await self._tasks.cancel()
