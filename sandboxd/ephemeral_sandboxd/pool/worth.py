"""What a sandbox that stands ready is worth: the wait that it is expected to save, for the memory that it holds.

    worth = probability that it is used × milliseconds saved ÷ GiB held

An idle sandbox is given back when something worth more needs its memory, and a plan whose sandbox would be worth less than
everything that stands is not built. Code that has arrived is certain: it outbids every bet.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from ephemeral import settings, wire
from ephemeral_sandboxd.pool.sessions import Session

CERTAIN = float("inf")
BOOT_MS = 400.0
"""What an empty sandbox saves: its boot (measured 390 ms)."""
UNKNOWN_IMPORTS_MS = 1000.0
"""Imports that no snapshot has timed yet."""
VARIABLES_MS = 15_000.0
"""What the loss of a session's variables and files costs: at least one more turn of the conversation, to compute them again."""
AGAIN = 0.5
"""Probability that a session which has executed executes again, while it is fresh."""
SMALLEST_BYTES = 32 << 20


def of_session(session: Session, now: float | None = None) -> float:
    """Worth of the sandbox that ``session`` has; ``now`` is time.monotonic()."""
    sandbox = session.sandbox
    if sandbox is None:
        return 0.0
    plan = session.record.plan if session.record else None
    probability = max(AGAIN if sandbox.used else 0.0, plan.needs_code if plan and plan.action == "provision" else 0.0)
    silence = (time.monotonic() if now is None else now) - session.last_seen
    # Half as probable after each quarter of the time after which the session counts as over.
    probability *= 0.5 ** (silence / max(1.0, settings.get("idle_seconds") / 4))
    saved = BOOT_MS + sandbox.imports_ms + (VARIABLES_MS if sandbox.used else 0.0)
    return _per_gib(probability * saved, sandbox.memory_bytes)


def of_plan(plan: wire.Plan, imports_ms: float | None, memory_bytes: int) -> float:
    """Worth of the sandbox that ``plan`` asks for. ``imports_ms``: what its imports took when they were last timed, None if never."""
    return _per_gib(plan.needs_code * (BOOT_MS + (UNKNOWN_IMPORTS_MS if imports_ms is None else imports_ms)), memory_bytes)


def least(sessions: Iterable[Session]) -> tuple[Session, float] | None:
    """The session whose idle sandbox is worth least, and that worth. None when no sandbox is idle."""
    now = time.monotonic()
    idle = [(of_session(session, now), session) for session in sessions
            if session.sandbox and session.sandbox.state == "ready" and not session.lock.locked()]
    if not idle:
        return None
    worth, session = min(idle, key=lambda pair: pair[0])
    return session, worth


def _per_gib(milliseconds: float, memory_bytes: int) -> float:
    return milliseconds / (max(SMALLEST_BYTES, memory_bytes) / (1 << 30))
