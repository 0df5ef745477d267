"""The ledger's door: record something, and it is on its way to the database and to whoever listens live."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar, get_args

from ephemeral import settings, wire
from ephemeral_sandboxd.errors import NotFound, Unavailable
from ephemeral_sandboxd.ledger import pruning, rows, unfinished
from ephemeral_sandboxd.ledger.bus import Bus
from ephemeral_sandboxd.ledger.costs import KINDS, MATTERS_MS, CostBook
from ephemeral_sandboxd.ledger.opening import prepare
from ephemeral_sandboxd.ledger.queries import Queries
from ephemeral_sandboxd.ledger.unfinished import Unfinished
from ephemeral_sandboxd.ledger.writer import Writer

P = ParamSpec("P")
T = TypeVar("T")

CONVERSATION = frozenset((*get_args(wire.Event.model_fields["kind"].annotation), "k2_prompt", "k2_answer"))
"""Kinds of moments whose text is the conversation's, not ours."""

NAMES = frozenset({"name", "model", "app", "call", "digest"})
"""Fields of such a moment that may hold text all the same: they name things."""

READ_PATIENCE_SECONDS = 2.0
"""How long a read waits for what was recorded before it, at most: with a full disk old rows can still be read."""


@dataclass(frozen=True)
class Figures:
    """How the writing goes: records that wait, those lost since the start, commits that failed, the database's size."""

    queued: int
    dropped_rows: int
    dropped_moments: int
    failures: int
    failing: bool
    live_dropped: int
    size_bytes: int


class Recorder:
    """Records wire messages. Each recording method returns at once: the row is queued, the message published on `bus`.

    A row is safe (survives `kill -9`) once a `flush` that began after it has returned. With `capture` off neither the
    database nor the bus holds code, output or conversation text: sizes only.
    """

    def __init__(self, path: Path, *, capture: bool) -> None:
        """Opens the database at `path`, made or migrated as needed; one that is damaged is moved aside.

        Raises errors.Refused when a newer sandboxd has written it, errors.Unavailable when it cannot be opened.
        """
        prepare(path)
        self.bus = Bus()
        self._path = path
        self._pruning = asyncio.Lock()
        self._capture = capture
        self._writer = Writer(path)
        self._queries = Queries(path)
        self._plan_ids = itertools.count(self._queries.last_plan_id() + 1)
        self._costs = CostBook()
        for took_ms, with_modules in self._queries.latest_starts():
            self._costs.started(took_ms, with_modules)
        for moment in self._queries.latest_moments(KINDS, MATTERS_MS):
            self._costs.moment(moment)

    # ------------------------------------------------------------------------------------------------- recording

    def session(self, s: wire.Session) -> None:
        self._writer.put(("session", s.id), partial(rows.of_session, s))
        self.bus.publish(wire.Live(kind="session", session=s))

    def plan(self, p: wire.PlanRecord) -> None:
        self._writer.put(("plan", p.id), partial(rows.of_plan, p))
        self.bus.publish(wire.Live(kind="plan", plan=p))

    def execution(self, e: wire.Execution) -> None:
        sizes = rows.sizes_of(e)
        if not self._capture:
            e = rows.without_content(e)
        self._writer.put(("execution", e.id), partial(rows.of_execution, e, sizes))
        self.bus.publish(wire.Live(kind="execution", execution=e))

    def sandbox(self, s: wire.Sandbox) -> None:
        self._writer.put(("sandbox", s.id), partial(rows.of_sandbox, s))
        self._costs.sandbox(s)
        self.bus.publish(wire.Live(kind="sandbox", sandbox=s))

    def environment(self, e: wire.Environment) -> None:
        self._writer.put(("environment", e.id), partial(rows.of_environment, e))

    def snapshot(self, s: wire.Snapshot) -> None:
        self._writer.put(("snapshot", s.id), partial(rows.of_snapshot, s))
        self._costs.snapshot(s)

    def moment(self, m: wire.Moment) -> None:
        if not self._capture and m.kind in CONVERSATION:
            m = _without_text(m)
        self._writer.append(partial(rows.of_moment, m))
        self._costs.moment(m)
        self.bus.publish(wire.Live(kind="moment", moment=m))

    def next_plan_id(self) -> int:
        """Ids of plans go on where the database left off."""
        return next(self._plan_ids)

    async def flush(self) -> bool:
        """Return when all that was recorded is committed (True), or cannot be at the moment (False)."""
        return await asyncio.wrap_future(self._writer.flush())

    async def close(self) -> None:
        """Write what is queued, end the live subscriptions, close the files."""
        self.bus.close()
        self._queries.close()  # first: the last to close clears the log away, and a reader could not
        await asyncio.to_thread(self._writer.close)

    def costs(self) -> wire.Costs:
        """What things cost on this host, by what was recorded here lately. Cheap."""
        return self._costs.costs()

    def health(self) -> dict[str, str]:
        """What was lost and what is wrong, for `Host.facts`; empty when all is well."""
        writer = self._writer
        counted = {
            "ledger_failing": writer.failing or "",
            "ledger_dropped_rows": str(writer.dropped_rows or ""),
            "ledger_dropped_moments": str(writer.dropped_moments or ""),
            "live_dropped": str(self.bus.dropped or ""),
        }
        return {name: text for name, text in counted.items() if text}

    def figures(self) -> Figures:
        """The same and more as numbers, for the metrics."""
        writer = self._writer
        return Figures(
            queued=writer.queued, dropped_rows=writer.dropped_rows, dropped_moments=writer.dropped_moments, failures=writer.failures,
            failing=writer.failing is not None, live_dropped=self.bus.dropped, size_bytes=self._path.stat().st_size if self._path.exists() else 0,
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------------- housekeeping

    def unfinished(self) -> list[Unfinished]:
        """Sessions that the database holds for active, or whose end was a crash, with the sandbox they had. Blocks for a few milliseconds."""
        return self._now(unfinished.unfinished)

    def mark_lost(self) -> list[str]:
        """To be called at the daemon's start, before anything is recorded: what an earlier one left unfinished is over. Its
        sandboxes are lost, its executions have crashed, its sessions have ended.

        Returns the sessions in whose sandbox something had run: whoever goes on with one has to be told. Blocks for a few milliseconds.
        """
        return [left.session for left in self._now(unfinished.mark_lost) if left.ran]

    def _now(self, job: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return self._writer.work(job).result()
        except sqlite3.Error as problem:
            raise Unavailable(
                "The ledger cannot be written", f"{self._path}: {problem}.", "Check that its disk has space and that no other program holds it locked."
            ) from problem

    async def prune(self, older_than_days: float | None = None, *, dry_run: bool = False, vacuum: bool = False) -> wire.Pruned:
        """Delete sessions that ended more than `older_than_days` ago, and the oldest ones while the database has more than
        EPHEMERAL_LEDGER_BYTES. None stands for EPHEMERAL_RETENTION_DAYS, of which 0 means that nothing is too old.

        Active sessions are never touched. `vacuum` rewrites the whole file. Raises Unavailable when the database cannot be written.
        """
        keep_days = older_than_days if older_than_days is not None else settings.get("retention_days") or None
        budget_bytes = settings.get("ledger_bytes")
        try:
            if dry_run:
                return await self._read(self._queries.prunable, keep_days, budget_bytes)
            async with self._pruning:
                return await pruning.prune(self._writer, keep_days=keep_days, budget_bytes=budget_bytes, vacuum=vacuum)
        except sqlite3.Error as problem:
            raise Unavailable(
                "The ledger cannot be pruned", f"{self._path}: {problem}.", "Check that its disk has space left, then try again: ephemeral prune"
            ) from problem

    # ------------------------------------------------------------------------------------------------- reading
    # A read sees all that was recorded before it. It runs on a thread: a large page must not hold executions up.

    async def sessions(self, limit: int = 100, before: str | None = None) -> wire.Page[wire.Session]:
        return await self._read(self._queries.sessions, limit, before)

    async def get_session(self, session_id: str) -> wire.Session:
        """Raises NotFound."""
        found = await self._read(self._queries.session, session_id)
        if found is None:
            raise NotFound("No such session", f"No session {session_id} was ever opened here.", "GET /v1/sessions lists them.")
        return found

    async def plans(self, session_id: str) -> wire.Page[wire.PlanRecord]:
        return await self._read(self._queries.plans, session_id)

    async def moments(self, session_id: str) -> wire.Page[wire.Moment]:
        """Oldest first."""
        return await self._read(self._queries.moments, session_id)

    async def executions(
        self, session_id: str | None = None, limit: int = 100, before: str | None = None
    ) -> wire.Page[wire.Execution]:
        return await self._read(self._queries.executions, session_id, limit, before)

    async def get_execution(self, execution_id: str) -> wire.Execution:
        """Raises NotFound."""
        found = await self._read(self._queries.execution, execution_id)
        if found is None:
            raise NotFound("No such execution", f"No execution {execution_id} ran here.", "GET /v1/executions lists them.")
        return found

    async def _read(self, query: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        written = asyncio.wrap_future(self._writer.flush())
        await asyncio.wait([written], timeout=READ_PATIENCE_SECONDS)
        return await asyncio.to_thread(query, *args, **kwargs)


def _without_text(m: wire.Moment) -> wire.Moment:
    """The same mark without the conversation's words: numbers stay, and the names of things."""
    kept = {
        key: value
        for key, value in m.data.items()
        if isinstance(value, int | float) or (key in NAMES and isinstance(value, str))
    }
    return m.model_copy(update={"detail": "", "data": kept})
