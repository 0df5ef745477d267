"""What the pool expects of a runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from ephemeral_sandboxd.runtimes.box import Box


@dataclass(frozen=True)
class Size:
    """Limits of one sandbox. Memory includes its scratch, which is a tmpfs."""

    memory_bytes: int
    cpus: float
    pids: int
    disk_bytes: int


@dataclass(frozen=True)
class Usage:
    """What the host's kernel says a sandbox uses. ``memory_bytes`` leaves out page cache that can be dropped."""

    memory_bytes: int
    peak_bytes: int
    cpu_ms: float


class Runtime(Protocol):
    """Starts sandboxes. ``gvisor`` drives runsc itself and can snapshot; ``docker`` asks an engine."""

    name: Literal["gvisor", "docker"]
    isolation: str
    can_snapshot: bool

    async def check(self) -> None:
        """Called once, before anything else. Raises errors.Unavailable, with what to type, when this cannot run here."""
        ...

    def limit(self, memory_bytes: int, cpus: float) -> None:
        """What all sandboxes together may take, kept by the kernel as far as the runtime can have it so: the backstop of the pool's budget.
        Called once, after check()."""
        ...

    async def start(self, name: str, size: Size, image: Path | None = None, slots: dict[int, Path] | None = None,
                    root: Path | None = None) -> Box:
        """A sandbox whose guest answers, with ``slots`` mounted; restored from ``image`` where one is given, on the root filesystem ``root``
        (else the runtime's own). Its box may bear another name, if it was created beforehand.

        Raises errors.Unavailable when it does not start (the message carries the runtime's own last words).
        """
        ...

    async def reap(self) -> int:
        """Delete what an earlier daemon on this state directory left. Called once, after check(). Returns how many."""
        ...

    async def close(self) -> None:
        """Called last, when every sandbox is deleted: leave nothing."""
        ...

    def fingerprint(self, root: Path | None = None) -> str:
        """All of this runtime that a snapshot is only valid for: build, platform, CPU features, spec, guest."""
        ...
