"""Keeps the history up to date: asks sandboxd now and then which sessions have ended, and what they imported."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from typing import Any
from urllib.parse import quote

from pydantic import ValidationError

from ephemeral import names
from ephemeral.wire import Execution, Page, PlanRecord, Session
from ephemeral_predictor.history import History, Observed, Run
from ephemeral_predictor.sandboxd import Sandboxd

log = logging.getLogger(__name__)

PERIOD_SECONDS = 30.0
_SECONDS = 10.0  # for one answer
_PAGE = 100
_PAGES = 20  # looked through at first, and after sandboxd was away
_EXECUTIONS = 5  # a page of them: each may hold a megabyte of output, and reading it stands before somebody's plan
_EXECUTIONS_PAGES = 20
_PAUSE_SECONDS = 0.02  # between two sessions: to learn is never urgent
_LEFT_OPEN = 2_000
_LOOKED_UP = 20
_APPS = 20_000


class Follower:
    """Feeds ``history`` from sandboxd's sessions. While sandboxd does not answer nothing is learned, and nothing is lost: it is asked again.

    Sessions under another policy than ours are somebody's measurement, and count for nothing.
    """

    def __init__(self, client: Sandboxd, history: History, period_seconds: float = PERIOD_SECONDS) -> None:
        self.learned = 0
        self._client = client
        self._history = history
        self._period_seconds = period_seconds
        self._behind = True  # there may be sessions that ended long ago and are not counted
        self._open: OrderedDict[str, None] = OrderedDict()  # sessions that had not ended when they were seen
        self._apps: OrderedDict[str, str] = OrderedDict()

    def met(self, session: str, app: str) -> None:
        """``session`` belongs to ``app``. sandboxd is not told so of conversations for which nothing is planned."""
        if app:
            self._apps[session] = app
            self._apps.move_to_end(session)
            if len(self._apps) > _APPS:
                self._apps.popitem(last=False)

    async def run(self) -> None:
        """Learn until cancelled."""
        while True:
            await self.poll()
            await asyncio.sleep(self._period_seconds)

    async def poll(self) -> int:
        """Learn what there is to learn now. How many sessions that were."""
        ended = await self._ended()
        count = 0
        for session in sorted(ended or [], key=lambda session: session.ended_at or 0.0):
            observed = await self._observe(session)
            if observed is None or not self._history.record(observed):
                break  # sandboxd or the file cannot be used now: the rest is for the next time
            self._apps.pop(session.id, None)
            count += 1
            await asyncio.sleep(_PAUSE_SECONDS)
        self.learned += count
        self._behind = ended is None or count < len(ended)
        return count

    # ------------------------------------------------------------------------------------------------ which sessions

    async def _ended(self) -> list[Session] | None:
        """Those that have ended and are not counted: of the latest, page by page until one holds no such, and of those that were open before.
        None while sandboxd does not answer."""
        found: list[Session] = []
        listed: set[str] = set()
        before = ""
        for _ in range(_PAGES):
            page = _read(Page[Session], await self._client.get(f"/v1/sessions?limit={_PAGE}{before}", _SECONDS))
            if page is None:
                return None
            listed.update(session.id for session in page.items)
            fresh = [session for session in page.items if self._is_fresh(session)]
            found += fresh
            if page.next is None or not (fresh or self._behind):
                break
            before = f"&before={quote(page.next)}"
        for identity in [identity for identity in self._open if identity not in listed][:_LOOKED_UP]:
            del self._open[identity]  # back again, and last, when it is still open
            session = _read(Session, await self._client.get(f"/v1/sessions/{quote(identity)}", _SECONDS))
            if session and self._is_fresh(session):
                found.append(session)
        return found

    def _is_fresh(self, session: Session) -> bool:
        if session.state != "ended" or session.ended_at is None:
            self._open[session.id] = None
            if len(self._open) > _LEFT_OPEN:
                self._open.popitem(last=False)
            return False
        self._open.pop(session.id, None)
        return session.policy == "ours" and not self._history.settled(session.id, session.ended_at)

    # ------------------------------------------------------------------------------------------- what was in one of them

    async def _observe(self, session: Session) -> Observed | None:
        """None while sandboxd does not answer."""
        executions = await self._executions(session.id)
        if executions is None:
            return None
        runs: list[Run] = []
        imported: frozenset[str] = frozenset()
        for execution in sorted(executions, key=lambda execution: execution.created_at):
            if execution.state == "done" and execution.verdict != "refused":
                imported |= {names.normalize(package) for package in execution.needed}
                runs.append(Run(imported, execution.peak_memory_bytes, execution.verdict == "memory"))
        app = session.app or self._apps.get(session.id, "")
        if runs and not app:
            # A moment that comes before the first plan opens a session without an app.
            plans = _read(Page[PlanRecord], await self._client.get(f"/v1/sessions/{quote(session.id)}/plans", _SECONDS))
            app = next((record.plan.app for record in plans.items if record.plan.app), "") if plans else ""
        assert session.ended_at is not None
        return Observed(session.id, app, session.started_at, session.ended_at, tuple(runs))

    async def _executions(self, session: str) -> list[Execution] | None:
        found: list[Execution] = []
        before = ""
        for _ in range(_EXECUTIONS_PAGES):
            page = _read(Page[Execution], await self._client.get(f"/v1/executions?session={quote(session)}&limit={_EXECUTIONS}{before}", _SECONDS))
            if page is None:
                return None
            found += page.items
            if page.next is None:
                break
            before = f"&before={quote(page.next)}"
        return found


def _read(kind: type[Any], answer: Any) -> Any:
    """``answer`` as a ``kind``; None where it is none."""
    if answer is None:
        return None
    try:
        return kind.model_validate(answer)
    except ValidationError as problem:
        log.warning("sandboxd's answer is no %s: %s", kind.__name__, problem.errors(include_input=False, include_url=False)[:1])
        return None
