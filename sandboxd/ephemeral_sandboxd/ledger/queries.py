"""Reading the ledger. Pages are newest first; a page's cursor is the id of its last row.

Every method blocks for as long as SQLite does and may be called from any thread. Rows are numbered by SQLite in the
order they were first written, which is what "newest" means here: it needs no index and does not change.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from ephemeral import wire
from ephemeral_sandboxd.errors import BadRequest
from ephemeral_sandboxd.ledger import rows
from ephemeral_sandboxd.ledger.pruning import preview

T = TypeVar("T")

LOOKED_THROUGH = 50_000
LATEST, STARTS = 4_000, 500
"""Moments looked through, moments and sandboxes read, for what was measured before the start: some 50 ms."""


class Queries:
    """One reading connection, used by one caller at a time."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._address = f"{path.absolute().as_uri()}?mode=ro"
        self._connection = sqlite3.connect(self._address, uri=True, check_same_thread=False, timeout=5.0)
        self._connection.row_factory = lambda cursor, row: {
            column[0]: value for column, value in zip(cursor.description, row, strict=True)
        }

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def sessions(self, limit: int, before: str | None) -> wire.Page[wire.Session]:
        found, cursor = self._page("sessions", "", [], limit, before)
        return wire.Page(items=[rows.to_session(row) for row in found], next=cursor)

    def session(self, session_id: str) -> wire.Session | None:
        return self._one("sessions", session_id, rows.to_session)

    def plans(self, session_id: str) -> wire.Page[wire.PlanRecord]:
        """All plans of a session."""
        found = self._all("select * from plans where session_id = ? order by id desc", [session_id])
        packages = self._all(
            "select k.* from plan_packages k join plans p on p.id = k.plan_id where p.session_id = ? order by k.rowid",
            [session_id],
        )
        by_plan: dict[int, list[rows.Values]] = {}
        for package in packages:
            by_plan.setdefault(package["plan_id"], []).append(package)
        return wire.Page(items=[rows.to_plan(row, by_plan.get(row["id"], [])) for row in found])

    def moments(self, session_id: str) -> wire.Page[wire.Moment]:
        """A session's timeline, oldest first."""
        found = self._all("select * from moments where session_id = ? order by at, id", [session_id])
        return wire.Page(items=[rows.to_moment(row) for row in found])

    def latest_moments(self, kinds: Sequence[str], least_import_ms: float = 0.0) -> list[wire.Moment]:
        """The LATEST of these kinds, oldest first; without imports (``preload``) that took less than ``least_import_ms``: there are thousands."""
        marks = ", ".join("?" * len(kinds))
        found = self._all(
            f"""select * from moments where id > (select coalesce(max(id), 0) from moments) - ?
            and kind in ({marks}) and (kind <> 'preload' or duration_ms >= ?) order by id desc limit ?""",  # noqa: S608
            [LOOKED_THROUGH, *kinds, least_import_ms, LATEST],
        )
        return [rows.to_moment(row) for row in reversed(found)]

    def latest_starts(self) -> list[tuple[float, bool]]:
        """Of the latest sandboxes, oldest first: milliseconds, and whether they came with anything imported."""
        found = self._all(
            """select s.start_ms, coalesce(p.modules, '[]') <> '[]' as with_modules
            from sandboxes s left join snapshots p on p.id = s.started_from
            where s.rowid > (select coalesce(max(rowid), 0) from sandboxes) - ? and s.start_ms is not null order by s.rowid""",
            [STARTS],
        )
        return [(row["start_ms"], bool(row["with_modules"])) for row in found]

    def executions(self, session_id: str | None, limit: int, before: str | None) -> wire.Page[wire.Execution]:
        """Those of one session, or of all."""
        where, values = ("session_id = ?", [session_id]) if session_id is not None else ("", [])
        found, cursor = self._page("executions", where, values, limit, before)
        marks = ", ".join("?" * len(found))
        outputs = self._all(
            f"select * from execution_outputs where execution_id in ({marks}) order by position",  # noqa: S608
            [row["id"] for row in found],
        )
        by_execution: dict[str, list[rows.Values]] = {}
        for output in outputs:
            by_execution.setdefault(output["execution_id"], []).append(output)
        items = [rows.to_execution(row, by_execution.get(row["id"], [])) for row in found]
        return wire.Page(items=items, next=cursor)

    def execution(self, execution_id: str) -> wire.Execution | None:
        outputs = self._all("select * from execution_outputs where execution_id = ? order by position", [execution_id])
        return self._one("executions", execution_id, lambda row: rows.to_execution(row, outputs))

    def last_plan_id(self) -> int:
        """0 when there is none."""
        return self._all("select coalesce(max(id), 0) as last from plans", [])[0]["last"]

    def prunable(self, keep_days: float | None, budget_bytes: int) -> wire.Pruned:
        """What pruning would delete now. Has a connection of its own: it reads the whole database, and pages must not wait for that."""
        with closing(sqlite3.connect(self._address, uri=True)) as connection:
            return preview(connection, keep_days=keep_days, budget_bytes=budget_bytes)

    def _page(
        self, table: str, where: str, values: list[Any], limit: int, before: str | None
    ) -> tuple[list[rows.Values], str | None]:
        """At most `limit` rows that are older than the row `before`, and the cursor of the page after them."""
        conditions = [where] if where else []
        if before is not None:
            cursor = self._all(f"select rowid as place from {table} where id = ?", [before])  # noqa: S608
            if not cursor:
                raise BadRequest(
                    "Unknown cursor", f"before={before} names no row of {table}.", "Pass the `next` of a page, unchanged."
                )
            conditions.append("rowid < ?")
            values = [*values, cursor[0]["place"]]
        filtered = f" where {' and '.join(conditions)}" if conditions else ""
        found = self._all(
            f"select * from {table}{filtered} order by rowid desc limit ?",  # noqa: S608
            [*values, limit + 1],
        )
        more = len(found) > limit
        found = found[:limit]
        return found, found[-1]["id"] if more else None

    def _one(self, table: str, key: str, read: Callable[[rows.Values], T]) -> T | None:
        found = self._all(f"select * from {table} where id = ?", [key])  # noqa: S608
        return read(found[0]) if found else None

    def _all(self, sql: str, values: list[Any]) -> list[rows.Values]:
        with self._lock:
            return self._connection.execute(sql, values).fetchall()
