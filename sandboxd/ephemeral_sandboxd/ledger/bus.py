"""The live fan-out: every subscriber gets every message, and none can slow the publisher down."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType

from ephemeral.wire import Live


class Bus:
    """Lives on one event loop: `publish` and `subscribe` are called from its thread."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()
        self._observers: list[Callable[[Live], None]] = []
        self.dropped = 0
        """Messages that some subscriber was too slow for, over all subscribers."""

    def publish(self, live: Live) -> None:
        """Hand `live` to all who listen. Returns at once."""
        for observer in self._observers:
            observer(live)
        for subscription in self._subscriptions:
            subscription._offer(live)

    def subscribe(self, capacity: int = 1000) -> Subscription:
        """A subscription that holds at most `capacity` messages its reader has not taken; the oldest go first."""
        return Subscription(self, capacity)

    def observe(self, observer: Callable[[Live], None]) -> None:
        """Have `observer` called with every message, by the publisher itself: for what counts and misses none. It must be
        done in microseconds, and must not raise."""
        self._observers.append(observer)

    def close(self) -> None:
        """End every subscription: its reader's loop is over once it has taken what is there."""
        for subscription in list(self._subscriptions):
            subscription.close()


class Subscription(AsyncIterator[Live]):
    """`with bus.subscribe() as live: async for message in live: …`"""

    def __init__(self, bus: Bus, capacity: int) -> None:
        self._bus = bus
        self._waiting: deque[Live] = deque(maxlen=capacity)
        self._something = asyncio.Event()
        self._open = True
        self.dropped = 0
        bus._subscriptions.add(self)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._open = False
        self._bus._subscriptions.discard(self)
        self._something.set()

    async def __anext__(self) -> Live:
        while not self._waiting:
            if not self._open:
                raise StopAsyncIteration
            self._something.clear()
            await self._something.wait()
        return self._waiting.popleft()

    def _offer(self, live: Live) -> None:
        if len(self._waiting) == self._waiting.maxlen:
            self.dropped += 1
            self._bus.dropped += 1
        self._waiting.append(live)
        self._something.set()
