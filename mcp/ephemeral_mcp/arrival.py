"""When the call that is being served arrived, and what its HTTP request said of its session."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class Arrival:
    """`at` is `time.perf_counter()` of the first sign of the request; `session` its session header, if it had one."""

    at: float
    session: str | None = None

    @property
    def elapsed_ms(self) -> float:
        return (time.perf_counter() - self.at) * 1000


ARRIVAL: ContextVar[Arrival] = ContextVar("ephemeral_arrival")
