"""The Python inside the sandbox, and which wheels it can use."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from functools import cached_property

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

_UV_KNOWS = (17, 28, *range(31, 41))
"""The glibc 2.x that uv has platforms for; what a newer one could run beyond that is not looked for."""
_LEGACY = {(2, 17): "manylinux2014", (2, 12): "manylinux2010", (2, 5): "manylinux1"}


@dataclass(frozen=True)
class Target:
    """CPython ``python`` (``3.11``) on Linux with the glibc of the sandbox's root filesystem (Debian 12: 2.36)."""

    python: str = "3.11"
    machine: str = field(default_factory=platform.machine)
    glibc: tuple[int, int] = (2, 36)

    @property
    def uv_platform(self) -> str:
        """As ``uv --python-platform`` calls it."""
        return f"{self.machine}-manylinux_2_{max(known for known in _UV_KNOWS if known <= max(self.glibc[1], _UV_KNOWS[0]))}"

    def preference(self, filename: str) -> int | None:
        """How well the wheel called ``filename`` fits: 0 is best; None when it cannot be used, or is no wheel's name."""
        try:
            tags = parse_wheel_filename(filename)[3]
        except InvalidWheelFilename:
            return None
        return min((self._order[tag] for tag in tags if tag in self._order), default=None)

    @cached_property
    def _order(self) -> dict[Tag, int]:
        major, minor = (int(part) for part in self.python.split("."))
        platforms = []
        for glibc in range(self.glibc[1], 4, -1):
            platforms.append(f"manylinux_2_{glibc}_{self.machine}")
            if (2, glibc) in _LEGACY:
                platforms.append(f"{_LEGACY[2, glibc]}_{self.machine}")
        platforms.append(f"linux_{self.machine}")
        interpreter = f"cp{major}{minor}"
        tags = [*cpython_tags((major, minor), platforms=platforms), *compatible_tags((major, minor), interpreter, platforms)]
        return {tag: place for place, tag in reversed(list(enumerate(tags)))}
