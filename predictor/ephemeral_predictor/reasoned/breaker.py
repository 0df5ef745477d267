"""Stops asking a service that fails."""

from __future__ import annotations

import time
from collections.abc import Callable


class Breaker:
    """Opens after ``limit`` failures in a row, for ``pause_seconds``; then one try decides whether it closes."""

    def __init__(self, limit: int = 5, pause_seconds: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._pause_seconds = pause_seconds
        self._clock = clock
        self._failures = 0
        self._open_until = 0.0

    @property
    def is_open(self) -> bool:
        """Whether nothing should be asked now."""
        return self._failures >= self._limit and self._clock() < self._open_until

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self) -> None:
        self._failures += 1
        self._open_until = self._clock() + self._pause_seconds
