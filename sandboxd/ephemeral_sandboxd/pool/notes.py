"""What the pool tells the world while it works. The ledger writes it down; the pool does not know how."""

from __future__ import annotations

import time
from typing import Any, Protocol

from ephemeral import wire


class Notes(Protocol):
    """Every call that is not awaited returns at once; none raises."""

    def session(self, session: wire.Session) -> None: ...
    def plan(self, record: wire.PlanRecord) -> None: ...
    def execution(self, execution: wire.Execution) -> None: ...
    def sandbox(self, sandbox: wire.Sandbox) -> None: ...
    def environment(self, environment: wire.Environment) -> None: ...
    def snapshot(self, snapshot: wire.Snapshot) -> None: ...
    def moment(self, moment: wire.Moment) -> None: ...
    def next_plan_id(self) -> int: ...

    def mark_lost(self) -> list[str]:
        """Called once, at the start: what an earlier daemon left unfinished is over. Returns the sessions in whose sandbox something had run."""
        ...

    async def prune(self) -> object:
        """Delete what is older than is kept."""
        ...

    def costs(self) -> wire.Costs:
        """What things cost on this host, read off what it was told."""
        ...

    def health(self) -> dict[str, str]:
        """What was lost and what is wrong; empty when all is well."""
        ...


class Stopwatch:
    """Times one step of a session and notes it as a moment when the step is over; ``data`` may be added to until then."""

    def __init__(self, notes: Notes, session_id: str, kind: str, detail: str = "", **data: Any):
        self._notes = notes
        self._session, self._kind, self._detail, self.data = session_id, kind, detail, data
        self.ms = 0.0

    def __enter__(self) -> Stopwatch:
        self._began = time.perf_counter()
        return self

    def __exit__(self, kind: Any, problem: Any, trace: Any) -> None:
        self.ms = (time.perf_counter() - self._began) * 1000
        if problem is not None:
            self.data["failed"] = type(problem).__name__
        note(self._notes, self._session, self._kind, self._detail, self.ms, self.data)


def note(notes: Notes, session: str, kind: str, detail: str = "", duration_ms: float | None = None, data: dict[str, Any] | None = None) -> None:
    """One mark on a session's timeline, now."""
    notes.moment(wire.Moment(session=session, at=time.time(), kind=kind, detail=detail[:4000], duration_ms=duration_ms, data=data or {}))
