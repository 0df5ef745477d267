"""What the proxy's processes count, in memory that they share: any of them can tell it all."""

from __future__ import annotations

import mmap
import struct
from typing import Any

_NAMES = (
    # a worker
    "connections", "requests", "refused", "unreachable", "frames_sent", "copies_dropped", "copies_failed", "crashed",
    # the reader
    "frames_read", "events_sent", "events_dropped", "unreadable", "conversations",
    # the parent
    "restarts",
    # a worker and the reader: second of the monotonic clock at which it was alive
    "alive_at",
)  # fmt: skip
_SLOT = struct.Struct("<Q")
_PLACES = {name: place * _SLOT.size for place, name in enumerate(_NAMES)}
_ROW_BYTES = len(_NAMES) * _SLOT.size


class Counters:
    """One row for each process. Make it before forking; a process writes its own row only."""

    def __init__(self, rows: int) -> None:
        self._memory = mmap.mmap(-1, rows * _ROW_BYTES)
        self._rows = [Row(self._memory, number * _ROW_BYTES) for number in range(rows)]

    def row(self, number: int) -> Row:
        return self._rows[number]

    def totals(self) -> dict[str, int]:
        """Every counter, summed over all processes since the parent's start."""
        return {name: sum(getattr(row, name) for row in self._rows) for name in _NAMES if name != "alive_at"}


class Row:
    """Counters of one process, as attributes."""

    __slots__ = ("_memory", "_start")
    _memory: mmap.mmap
    _start: int

    def __init__(self, memory: mmap.mmap, start: int) -> None:
        object.__setattr__(self, "_memory", memory)
        object.__setattr__(self, "_start", start)

    def __getattr__(self, name: str) -> int:
        try:
            place = _PLACES[name]
        except KeyError:
            raise AttributeError(name) from None
        value: int = _SLOT.unpack_from(self._memory, self._start + place)[0]
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        _SLOT.pack_into(self._memory, self._start + _PLACES[name], value)
