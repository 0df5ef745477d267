"""The ledger's door: record something, and it is on its way to the database and to whoever listens live."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar, get_args

from ephemeral import wire
from ephemeral_sandboxd.errors import NotFound
from ephemeral_sandboxd.ledger import rows
from ephemeral_sandboxd.ledger.bus import Bus
from ephemeral_sandboxd.ledger.opening import prepare
from ephemeral_sandboxd.ledger.queries import Queries
from ephemeral_sandboxd.ledger.writer import Writer

P = ParamSpec("P")
T = TypeVar("T")

CONVERSATION = frozenset(get_args(wire.Event.model_fields["kind"].annotation))
"""Kinds of moments whose text is the conversation's, not ours."""

NAMES = frozenset({"name", "model", "app", "call", "digest"})
"""Fields of such a moment that may hold text all the same: they name things."""

READ_PATIENCE_SECONDS = 2.0
"""How long a read waits for what was recorded before it, at most: with a full disk old rows can still be read."""


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
        self._capture = capture
        self._writer = Writer(path)
        self._queries = Queries(path)
        self._plan_ids = itertools.count(self._queries.last_plan_id() + 1)

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
        self.bus.publish(wire.Live(kind="sandbox", sandbox=s))

    def environment(self, e: wire.Environment) -> None:
        self._writer.put(("environment", e.id), partial(rows.of_environment, e))

    def snapshot(self, s: wire.Snapshot) -> None:
        self._writer.put(("snapshot", s.id), partial(rows.of_snapshot, s))

    def moment(self, m: wire.Moment) -> None:
        if not self._capture and m.kind in CONVERSATION:
            m = _without_text(m)
        self._writer.append(partial(rows.of_moment, m))
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
        await asyncio.to_thread(self._writer.close)
        self._queries.close()

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
