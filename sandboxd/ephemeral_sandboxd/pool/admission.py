"""Who may start a sandbox now: memory for it and a turn, in order of arrival, and who is told to come back later.

Code that has arrived waits its turn, first come first served, while spares and cheaper bets are given back for it; only a full queue or a long wait
refuses it (429 with Retry-After). A plan waits its turn too, and then gets what is free or worth less, or is declined.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator

from ephemeral_sandboxd.errors import Busy
from ephemeral_sandboxd.pool.worth import CERTAIN

WAITING_AT_MOST = 512
FIRST_SECONDS = 30.0
"""How long the first in the queue waits for memory that nobody gives back."""
WAIT_SECONDS = 180.0
"""How long anybody waits."""


class Declined(Exception):
    """A bet that is worth less than what it would have displaced."""


class Admission:
    """Keeps the sandboxes within ``budget_bytes``, and no more than ``at_once`` of them starting (more only slow each other: gvisor#9119).

    ``used`` says what they hold now, ``yield_one`` gives back one that is worth less than its argument and says whether there was one.
    """

    def __init__(self, budget_bytes: int, at_once: int, used: Callable[[], int], yield_one: Callable[[float], bool]):
        self.budget_bytes = budget_bytes
        self.refused = 0
        self.starting_bytes = 0
        """Reserved for those that are starting; what has started is measured."""
        self._at_once = at_once
        self._starting = 0
        self._used = used
        self._yield_one = yield_one
        self._queue: deque[asyncio.Future[None]] = deque()
        self._closing = False
        self._served = deque[float](maxlen=32)

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @contextlib.asynccontextmanager
    async def room(self, memory_bytes: int, worth: float) -> AsyncIterator[None]:
        """Hold ``memory_bytes`` and a turn while a sandbox starts.

        Raises errors.Busy (429) for code that cannot be served, Declined for a bet that is not worth it. While sandboxd stops, Busy for both.
        """
        self._refuse_when_closing()
        if memory_bytes > self.budget_bytes:  # whatever was given back for it would be lost for nothing
            raise self._refusal(worth, f"it needs {memory_bytes >> 20} MiB, and all sandboxes together may hold {self.budget_bytes >> 20} MiB")
        if self._queue or self._starting >= self._at_once or not self._make_room(memory_bytes, worth):
            await self._wait(memory_bytes, worth)
        self._starting += 1
        self.starting_bytes += memory_bytes
        self.changed()  # the next in the queue may have a turn too
        try:
            yield
        finally:
            self._starting -= 1
            self.starting_bytes -= memory_bytes
            self._served.append(time.monotonic())
            self.changed()

    def changed(self) -> None:
        """Memory or a turn may have become free: the first in the queue looks again."""
        if self._queue and not self._queue[0].done():
            self._queue[0].set_result(None)

    def relieve(self) -> None:
        """Running code has grown beyond the budget: give back what is idle, cheapest first."""
        while self._used() + self.starting_bytes > self.budget_bytes and self._yield_one(CERTAIN):
            pass

    def close(self) -> None:
        """Refuse everybody who waits, and who comes from now on."""
        self._closing = True
        for waiter in self._queue:
            if not waiter.done():
                waiter.set_result(None)

    # ------------------------------------------------------------------------------------------------ inside

    async def _wait(self, memory_bytes: int, worth: float) -> None:
        """Until it is our turn and there is room."""
        if len(self._queue) >= WAITING_AT_MOST:
            raise self._refusal(worth, f"{len(self._queue)} sessions wait for a sandbox already")
        began = time.monotonic()
        first_since: float | None = None
        with self._place() as (turn, is_first):
            while True:
                self._refuse_when_closing()
                if is_first() and self._starting < self._at_once:
                    if self._make_room(memory_bytes, worth):
                        return
                    if worth != CERTAIN:
                        raise Declined(f"{memory_bytes >> 20} MiB for it would have to be taken from what is worth more")
                    first_since = first_since or time.monotonic()
                deadline = min(began + WAIT_SECONDS, (first_since or float("inf")) + FIRST_SECONDS)
                try:
                    async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                        await turn()
                except TimeoutError:
                    why = f"sandboxes hold {self._used() >> 20} MiB of {self.budget_bytes >> 20} MiB, and {len(self._queue)} wait"
                    raise self._refusal(worth, why) from None

    @contextlib.contextmanager
    def _place(self) -> Iterator[tuple[Callable[[], asyncio.Future[None]], Callable[[], bool]]]:
        """A place at the end of the queue: what to await until something has changed for the first in it, and whether that is us."""
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[None] = loop.create_future()
        self._queue.append(mine)

        def turn() -> asyncio.Future[None]:
            nonlocal mine
            if mine.done():
                fresh: asyncio.Future[None] = loop.create_future()
                self._queue[self._queue.index(mine)] = fresh
                mine = fresh
            return mine

        try:
            yield turn, lambda: self._queue[0] is mine
        finally:
            self._queue.remove(mine)
            self.changed()  # whoever is first now may have room

    def _make_room(self, memory_bytes: int, worth: float) -> bool:
        while self._used() + self.starting_bytes + memory_bytes > self.budget_bytes:
            if not self._yield_one(worth):
                return False
        return True

    def _refuse_when_closing(self) -> None:
        if self._closing:
            raise Busy("shutting down", "sandboxd is stopping", "try again when it runs")

    def _refusal(self, worth: float, why: str) -> Busy | Declined:
        """Code is told when to come back, and counted. Nobody waits for a bet."""
        if worth != CERTAIN:
            return Declined(why)
        self.refused += 1
        return Busy("no memory left", why, "end a session, or raise EPHEMERAL_MEMORY_BUDGET_BYTES", retry_after_seconds=self._retry_after())

    def _retry_after(self) -> float:
        """Seconds until the queue is through at the pace of the last starts; between 1 and 60."""
        if len(self._served) < 2 or (span := self._served[-1] - self._served[0]) <= 0:
            return 5.0
        return min(60.0, max(1.0, (len(self._queue) + 1) * span / (len(self._served) - 1)))
