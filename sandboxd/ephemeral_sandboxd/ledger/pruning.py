"""Forgetting: sessions that ended long ago, and the oldest ones while the file is larger than it may be.

A session goes with everything that was recorded for it; one that is active stays whole, whatever its age. All of it is done by
the writer, as many short transactions with the records of the day between them, and what they free is given back to the
file system a few pages at a time.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections import Counter
from functools import partial

from ephemeral.wire import Pruned
from ephemeral_sandboxd.ledger.rows import text_time
from ephemeral_sandboxd.ledger.writer import Writer

log = logging.getLogger(__name__)

ROWS_A_BATCH = 500
"""Rows deleted in one transaction: a few milliseconds for which a flush has to wait."""

PAGES_A_STEP = 500
"""Pages (of 4 KiB) given back in one transaction."""

DAY_SECONDS = 86_400.0

OF_SESSION = {
    "moments": "session_id = ?",
    "plan_packages": "plan_id in (select id from plans where session_id = ?)",
    "plans": "session_id = ?",
    "execution_outputs": "execution_id in (select id from executions where session_id = ?)",
    "executions": "session_id = ?",
    "sandboxes": "session_id = ?",
}
"""What belongs to a session, children before their parents."""

SESSION_OF = {
    "plan_packages": "(select session_id from plans where id = plan_id)",
    "execution_outputs": "(select session_id from executions where id = execution_id)",
    "sessions": "id",
}
"""How a row's session is found where it is not in `session_id`."""

SPARES = "session_id is null and state in ('deleted', 'lost') and created_at < ?"


async def prune(writer: Writer, *, keep_days: float | None, budget_bytes: int, vacuum: bool) -> Pruned:
    """Delete what ended more than `keep_days` ago (None: nothing for its age), then the oldest until the database has at most
    `budget_bytes` (0: no limit). Raises sqlite3.Error when the database cannot be written; what was deleted by then stays so."""
    deleted: Counter[str] = Counter()
    before = await asyncio.wrap_future(writer.work(size))
    if keep_days is not None:
        limit = _limit(keep_days)
        for delete in (delete_sessions, delete_spares):
            while batch := await asyncio.wrap_future(writer.work(partial(delete, before=limit))):
                deleted += batch
    while budget_bytes and await asyncio.wrap_future(writer.work(used)) > budget_bytes:
        batch = await asyncio.wrap_future(writer.work(partial(delete_sessions, sessions=1)))
        if not batch:
            log.warning("the ledger holds more than its %d bytes, all of it of active sessions: nothing more can be pruned", budget_bytes)
            break
        deleted += batch
    while await asyncio.wrap_future(writer.work(give_back)):
        pass
    await asyncio.wrap_future(writer.work(partial(finish, vacuum=vacuum)))
    after = await asyncio.wrap_future(writer.work(size))
    if deleted:
        log.info("pruned %d sessions, %d rows: the ledger has %d MiB, before %d MiB",
                 deleted["sessions"], deleted.total(), after >> 20, before >> 20)  # fmt: skip
    return Pruned(rows=_all_tables(deleted), freed_bytes=max(0, before - after), size_bytes=after)


def preview(connection: sqlite3.Connection, *, keep_days: float | None, budget_bytes: int) -> Pruned:
    """What `prune` would delete now. Reads the whole database once. Bytes are in proportion to what the rows hold."""
    rows: dict[str, Counter[str]] = {}
    weights: Counter[str] = Counter()
    for table in (*OF_SESSION, "sessions"):
        columns = [column[1] for column in _tuples(connection, f"pragma table_info({table})")]
        weight = " + ".join(f"coalesce(length(cast({column} as blob)), 0)" for column in columns)
        session = SESSION_OF.get(table, "session_id")
        for session_id, count, payload in _tuples(connection, f"select {session}, count(*), sum({weight}) from {table} group by 1"):  # noqa: S608
            rows.setdefault(session_id, Counter())[table] = count
            weights[session_id] += payload
    held = used(connection)
    scale = held / max(1, weights.total())
    limit = _limit(keep_days) if keep_days is not None else ""
    deleted: Counter[str] = Counter()
    freed = 0.0
    for session_id, ended_at in _tuples(connection, "select id, ended_at from sessions where state = 'ended' order by ended_at"):
        if ended_at is None or (ended_at >= limit and not (budget_bytes and held - freed > budget_bytes)):
            continue
        deleted += rows[session_id]
        freed += weights[session_id] * scale
    [(spares,)] = _tuples(connection, f"select count(*) from sandboxes where {SPARES}", limit)  # noqa: S608
    deleted["sandboxes"] += spares
    return Pruned(rows=_all_tables(deleted), freed_bytes=int(freed), size_bytes=size(connection), dry_run=True)


# ------------------------------------------------------------------------- jobs for the writer: one transaction each


def delete_sessions(connection: sqlite3.Connection, before: str | None = None, sessions: int = ROWS_A_BATCH) -> Counter[str]:
    """At most ROWS_A_BATCH rows of the `sessions` that ended first (before `before`, when given). Empty when there are none."""
    deleted: Counter[str] = Counter()
    connection.execute("begin immediate")
    ended = "select id from sessions where state = 'ended' and ended_at is not null"
    if before is None:
        found = connection.execute(f"{ended} order by ended_at limit ?", [sessions])
    else:
        found = connection.execute(f"{ended} and ended_at < ? order by ended_at limit ?", [before, sessions])
    for (session_id,) in found.fetchall():
        for table, belongs in OF_SESSION.items():
            deleted[table] += _delete(connection, table, belongs, session_id, ROWS_A_BATCH - deleted.total())
        if deleted.total() >= ROWS_A_BATCH:
            break  # its own row goes when nothing is left below it
        deleted["sessions"] += _delete(connection, "sessions", "id = ?", session_id, 1)
    connection.execute("commit")
    return +deleted


def delete_spares(connection: sqlite3.Connection, before: str) -> Counter[str]:
    """At most ROWS_A_BATCH sandboxes that are gone and never had a session."""
    connection.execute("begin immediate")
    deleted = Counter(sandboxes=_delete(connection, "sandboxes", SPARES, before, ROWS_A_BATCH))
    connection.execute("commit")
    return +deleted


def give_back(connection: sqlite3.Connection) -> int:
    """Make the file smaller by at most PAGES_A_STEP of its free pages. Returns how many are left; 0 also when they cannot be given back."""
    before = _number(connection, "freelist_count")
    connection.execute(f"pragma incremental_vacuum({PAGES_A_STEP})").fetchall()
    left = _number(connection, "freelist_count")
    return left if left < before else 0


def finish(connection: sqlite3.Connection, vacuum: bool) -> None:
    """Rewrite the file if asked to, and move the log into it: only then the file system has its space back."""
    if vacuum:
        connection.execute("vacuum")
    connection.execute("pragma wal_checkpoint(truncate)").fetchall()


def size(connection: sqlite3.Connection) -> int:
    """Bytes of the database."""
    return _number(connection, "page_count") * _number(connection, "page_size")


def used(connection: sqlite3.Connection) -> int:
    """Bytes of its pages that hold something."""
    return (_number(connection, "page_count") - _number(connection, "freelist_count")) * _number(connection, "page_size")


def _delete(connection: sqlite3.Connection, table: str, belongs: str, value: str, most: int) -> int:
    if most <= 0:
        return 0
    found = f"select rowid from {table} where {belongs} limit ?"  # noqa: S608
    return connection.execute(f"delete from {table} where rowid in ({found})", [value, most]).rowcount  # noqa: S608


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return _tuples(connection, f"pragma {pragma}")[0][0]


def _tuples(connection: sqlite3.Connection, sql: str, *values: str) -> list[tuple]:
    return connection.execute(sql, values).fetchall()


def _limit(keep_days: float) -> str:
    return text_time(time.time() - keep_days * DAY_SECONDS) or ""


def _all_tables(deleted: Counter[str]) -> dict[str, int]:
    return {table: deleted[table] for table in ("sessions", *OF_SESSION)}
