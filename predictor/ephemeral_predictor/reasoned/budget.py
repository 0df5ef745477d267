"""What K2 may cost: tokens in any hour, money in any day. Nothing is asked that could exceed either."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

_PERIOD_SECONDS = 300  # spending is kept by periods of this length
_HOUR, _DAY = 3600, 86_400
_MILLION = 1_000_000
LEAST_TOKENS = 256
"""Fewer tokens for an answer are not worth the question."""


@dataclass(frozen=True)
class Limits:
    """0 means no limit. Prices are for a million tokens that K2 reads and writes, in the currency of ``money_per_day``."""

    tokens_per_hour: int = 0
    money_per_day: float = 0.0
    price_read: float = 0.0
    price_written: float = 0.0

    def cost(self, read: int, written: int) -> float:
        return (read * self.price_read + written * self.price_written) / _MILLION


@dataclass(frozen=True)
class Reservation:
    """Tokens set aside for one question: ``written`` is the longest answer that it may get."""

    read: int
    written: int


class Budget:
    """Counts in ``path`` too, where one is given, so that a restart does not begin anew. By the wall clock for that reason."""

    def __init__(self, limits: Limits, path: Path | None = None, clock: Callable[[], float] = time.time) -> None:
        self._limits = limits
        self._path = path
        self._clock = clock
        self._spent = _load(path, clock()) if path else {}  # beginning of the period -> tokens read, tokens written
        self._reserved: list[Reservation] = []
        self._failing = False

    def reserve(self, read: int, written: int) -> Reservation | None:
        """Set aside ``read`` tokens for a question and up to ``written`` for its answer; None when there is not enough left."""
        limits = self._limits
        if limits.tokens_per_hour:
            spent = self.tokens(_HOUR) + sum(each.read + each.written for each in self._reserved)
            written = min(written, limits.tokens_per_hour - spent - read)
        if limits.money_per_day:
            spent_money = self.money() + sum(limits.cost(each.read, each.written) for each in self._reserved)
            left = limits.money_per_day - spent_money - limits.cost(read, 0)
            if left <= 0:
                return None
            if limits.price_written:
                written = min(written, int(left * _MILLION / limits.price_written))
        if written < LEAST_TOKENS:
            return None
        reservation = Reservation(read, written)
        self._reserved.append(reservation)
        return reservation

    def settle(self, reservation: Reservation, read: int, written: int) -> None:
        """The question of ``reservation`` is over and took so many tokens."""
        self._reserved.remove(reservation)
        if not (read or written):
            return
        now = self._clock()
        period = int(now // _PERIOD_SECONDS * _PERIOD_SECONDS)
        before = self._spent.get(period, (0, 0))
        self._spent[period] = (before[0] + read, before[1] + written)
        self._spent = {begun: tokens for begun, tokens in self._spent.items() if begun > now - _DAY - _PERIOD_SECONDS}
        self._save()

    def tokens(self, seconds: int = _HOUR) -> int:
        """Tokens taken in the last ``seconds``."""
        return sum(read + written for read, written in self._since(seconds))

    def money(self, seconds: int = _DAY) -> float:
        """What the last ``seconds`` cost, at the prices of now."""
        return sum(self._limits.cost(read, written) for read, written in self._since(seconds))

    def _since(self, seconds: int) -> list[tuple[int, int]]:
        # A period that has begun before counts whole: rather one question too few.
        earliest = self._clock() - seconds - _PERIOD_SECONDS
        return [tokens for begun, tokens in self._spent.items() if begun > earliest]

    def _save(self) -> None:
        if self._path is None:
            return
        young = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            young.write_text(json.dumps({str(begun): tokens for begun, tokens in self._spent.items()}))
            young.replace(self._path)
        except OSError as problem:
            if not self._failing:
                log.warning("what K2 costs is not kept over a restart: %s cannot be written (%s)", self._path, problem.strerror)
            self._failing = True
        else:
            self._failing = False


def _load(path: Path, now: float) -> dict[int, tuple[int, int]]:
    """What was spent before; nothing of a file that is not there or not ours."""
    try:
        kept = {int(begun): (int(read), int(written)) for begun, (read, written) in json.loads(path.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
    return {begun: tokens for begun, tokens in kept.items() if now - _DAY - _PERIOD_SECONDS < begun <= now and min(tokens) >= 0}
