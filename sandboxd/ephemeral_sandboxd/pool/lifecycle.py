"""The life of a sandbox, written once: which states may follow which."""

from __future__ import annotations

from ephemeral.wire import SandboxState

MOVES: dict[SandboxState, frozenset[SandboxState]] = {
    "booting": frozenset({"spare", "preparing", "lost", "deleted"}),
    "spare": frozenset({"preparing", "lost", "deleted"}),
    "preparing": frozenset({"ready", "lost", "deleted"}),
    "ready": frozenset({"preparing", "running", "lost", "deleted"}),
    "running": frozenset({"ready", "lost", "deleted"}),
    "lost": frozenset({"deleted"}),
    "deleted": frozenset(),
}


class IllegalMove(RuntimeError):
    """A sandbox was told to do what its state does not allow: a defect of ours."""


def move(now: SandboxState, to: SandboxState) -> SandboxState:
    """``to``, if it may follow ``now``. Raises IllegalMove."""
    if to != now and to not in MOVES[now]:
        raise IllegalMove(f"a {now} sandbox cannot become {to}")
    return to
