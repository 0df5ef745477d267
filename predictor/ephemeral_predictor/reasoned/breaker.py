"""Stops asking a service that fails."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

_LONGEST_SECONDS = 600.0


class Breaker:
    """Opens after ``limit`` failures in a row, for ``pause_seconds``; then one try decides whether it closes. Each try that
    fails doubles the pause, up to ten minutes."""

    def __init__(self, limit: int = 5, pause_seconds: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.why = ""
        """Why it is open; empty while it is closed."""
        self._limit = limit
        self._pause_seconds = pause_seconds
        self._clock = clock
        self._failures = 0
        self._open_until = -math.inf
        self._trying = False

    def allows(self) -> bool:
        """Whether a question may be asked now. While the breaker was open before, True is said once: tell it with
        ``succeeded``, ``failed`` or ``abandoned`` what came of the question."""
        if self._clock() < self._open_until:
            return False
        if not self.why:
            return True
        if self._trying:
            return False
        self._trying = True
        return True

    def succeeded(self) -> None:
        if self._clock() < self._open_until:
            return  # an answer to an older question says nothing about what opened it since
        self._failures, self._trying, self.why = 0, False, ""

    def failed(self, why: str) -> None:
        self._failures += 1
        self._trying = False
        over = self._failures - self._limit
        if over >= 0:
            self.open(why, min(self._pause_seconds * 2 ** min(over, 10), _LONGEST_SECONDS))

    def abandoned(self) -> None:
        """The question was taken back: nothing was learned."""
        self._trying = False

    def open(self, why: str, seconds: float = math.inf) -> None:
        """Ask nothing for ``seconds``, by default never again."""
        self.why = why
        self._trying = False
        self._open_until = max(self._open_until, self._clock() + seconds)

    def describe(self) -> str:
        """``closed``, or how long it stays open and why."""
        if not self.why:
            return "closed"
        left = self._open_until - self._clock()
        how_long = "until restarted" if left == math.inf else f"for {left:.0f} s" if left > 0 else "until the next try"
        return f"open {how_long}: {self.why}"
