"""How much one sandbox may have of its network."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ephemeral import settings


@dataclass(frozen=True)
class Limits:
    """``bytes`` holds each way, for all connections together. ``requests_per_second`` paces, and never refuses: what is over it waits, so that
    no sandbox can flood the ledger; ``burst`` may come at once."""

    connections: int = 32
    bytes: int = 1 << 30
    connect_seconds: float = 10.0
    idle_seconds: float = 300.0
    head_bytes: int = 64 << 10
    requests_per_second: float = 100.0
    burst: int = 500

    @classmethod
    def from_settings(cls) -> Limits:
        """Raises settings.SettingError."""
        return cls(connections=settings.get("egress_connections"), bytes=settings.get("egress_bytes"))


class Pace:
    """A bucket that fills with time. ``wait_seconds`` takes one out, on credit if it must."""

    def __init__(self, limits: Limits):
        self._limits = limits
        self._left = float(limits.burst)
        self._at = time.monotonic()

    def wait_seconds(self) -> float:
        """Take one; how long its taker has to wait."""
        self._fill()
        self._left -= 1
        return max(0.0, -self._left / self._limits.requests_per_second)

    def spare(self) -> bool:
        """Take one if there is one."""
        self._fill()
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def _fill(self) -> None:
        now = time.monotonic()
        self._left = min(float(self._limits.burst), self._left + (now - self._at) * self._limits.requests_per_second)
        self._at = now
