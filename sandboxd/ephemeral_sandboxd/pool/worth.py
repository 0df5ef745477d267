"""What a sandbox that stands ready is worth: the wait that it is expected to save, for the memory that it holds.

    worth = probability that it is used × milliseconds saved ÷ GiB held

What a boot and an import take is what they took on this host lately (``wire.Costs``); the constants here stand in until that was measured.
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
"""What an empty sandbox saves: its boot (measured 390 ms on another machine)."""
UNKNOWN_IMPORTS_MS = 1000.0
"""Imports of a plan, where nothing was timed on this host yet."""
VARIABLES_MS = 15_000.0
"""What the loss of a session's variables and files costs: at least one more turn of the conversation, to compute them again."""
AGAIN = 0.5
"""Probability that a session which has executed executes again, while it is fresh."""
SMALLEST_BYTES = 32 << 20


def boot_ms(costs: wire.Costs | None) -> float:
    """What an empty sandbox saves."""
    return costs.boot_ms.value if costs and costs.boot_ms.n else BOOT_MS


def imports_ms(modules: Iterable[str], snapshot: wire.Snapshot | None, costs: wire.Costs | None) -> float | None:
    """What it takes to have ``modules`` imported, by the ``snapshot`` that has some of them and by what the others took on this host.

    None where that is unknown of any: nothing was ever timed here.
    """
    tops = {module.partition(".")[0] for module in modules}
    if snapshot:
        tops -= {module.partition(".")[0] for module in snapshot.modules}
    saved = snapshot.import_ms if snapshot else 0.0
    for top in tops:
        timed = costs.modules.get(top) if costs else None
        if timed:
            saved += timed.import_ms.value
        elif costs and costs.import_ms.n:
            saved += costs.import_ms.value
        else:
            return None
    return saved


def of_session(session: Session, now: float | None = None, costs: wire.Costs | None = None) -> float:
    """Worth of the sandbox that ``session`` has; ``now`` is time.monotonic()."""
    sandbox = session.sandbox
    if sandbox is None:
        return 0.0
    plan = session.record.plan if session.record else None
    probability = max(AGAIN if sandbox.used else 0.0, plan.needs_code if plan and plan.action == "provision" else 0.0)
    silence = (time.monotonic() if now is None else now) - session.last_seen
    # Half as probable after each quarter of the time after which the session counts as over.
    probability *= 0.5 ** (silence / max(1.0, settings.get("idle_seconds") / 4))
    saved = boot_ms(costs) + sandbox.imports_ms + (VARIABLES_MS if sandbox.used else 0.0)
    return _per_gib(probability * saved, sandbox.memory_bytes)


def of_plan(plan: wire.Plan, saved_ms: float | None, memory_bytes: int, costs: wire.Costs | None = None) -> float:
    """Worth of the sandbox that ``plan`` asks for. ``saved_ms``: what its imports take, as ``imports_ms`` says; None if nobody knows."""
    return _per_gib(plan.needs_code * (boot_ms(costs) + (UNKNOWN_IMPORTS_MS if saved_ms is None else saved_ms)), memory_bytes)


def least(sessions: Iterable[Session], costs: wire.Costs | None = None) -> tuple[Session, float] | None:
    """The session whose idle sandbox is worth least, and that worth. None when no sandbox is idle."""
    now = time.monotonic()
    idle = [(of_session(session, now, costs), session) for session in sessions
            if session.sandbox and session.sandbox.state == "ready" and not session.lock.locked()]
    if not idle:
        return None
    worth, session = min(idle, key=lambda pair: pair[0])
    return session, worth


def _per_gib(milliseconds: float, memory_bytes: int) -> float:
    return milliseconds / (max(SMALLEST_BYTES, memory_bytes) / (1 << 30))
