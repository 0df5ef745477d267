"""The one writer of the database: a thread that commits, in one transaction, whatever has queued up since the last.

`put` and `append` return at once, whatever the disk does. What is queued for the same key is written once, in its last
state. When the disk is full or slow the queue fills up: first the oldest moments are dropped, then the oldest rows, each
counted; what remains is retried until it can be written.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from ephemeral_sandboxd.ledger.rows import Row

T = TypeVar("T")

log = logging.getLogger(__name__)

Make = Callable[[], list[Row]]
"""Builds the rows of one record; called on the writer's thread."""

LINGER_SECONDS = 0.01
"""How long a first record waits for company. Nobody waits for it but who flushes, and a flush ends it."""

RETRY_SECONDS = (0.1, 5.0)
"""First and longest pause between attempts while the database cannot be written."""


class Writer:
    """Owns the database file's only writing connection. Thread-safe."""

    def __init__(self, path: Path, *, capacity: int = 4096) -> None:
        """`capacity`: records that may wait, moments included. The file must hold the current schema."""
        self.dropped_moments = 0
        self.dropped_rows = 0
        self.failures = 0
        """Attempts to commit that failed."""
        self.failing: str | None = None
        """Why the last attempt failed, None when it did not."""
        self._path = path
        self._capacity = capacity
        self._rows: dict[Hashable, Make] = {}
        self._moments: deque[Make] = deque()
        self._flushes: list[Future[bool]] = []
        self._jobs: deque[tuple[Callable[[sqlite3.Connection], Any], Future[Any]]] = deque()
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    def put(self, key: Hashable, make: Make) -> None:
        """Insert or update the record `key` (any identity that is the same for the same record)."""
        with self._changed:
            if key not in self._rows:
                self._make_room(for_row=True)
            self._rows[key] = make
            self._changed.notify()

    def append(self, make: Make) -> None:
        """Insert a moment."""
        with self._changed:
            if self._make_room(for_row=False):
                self._moments.append(make)
                self._changed.notify()

    def flush(self) -> Future[bool]:
        """Done when everything put before it is committed (True) or an attempt to commit it failed (False)."""
        done: Future[bool] = Future()
        with self._changed:
            if self._closing:
                done.set_result(not self._rows and not self._moments)
            else:
                self._flushes.append(done)
                self._changed.notify()
        return done

    def work(self, job: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Have `job` called with the writing connection, outside of a transaction, once what was put before it is written.

        The result is the job's; whatever it raises is raised there, and what it left uncommitted is undone. One job runs
        between two commits, so a long piece of work is many short jobs. A closed writer cancels what has not begun.
        """
        done: Future[T] = Future()
        with self._changed:
            if self._closing:
                done.cancel()
            else:
                self._jobs.append((job, done))
                self._changed.notify()
        return done

    @property
    def queued(self) -> int:
        """Records that wait to be written."""
        return len(self._rows) + len(self._moments)

    def close(self, timeout_seconds: float = 10.0) -> None:
        """Write what is queued (one attempt) and stop. Blocks."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_seconds)

    def _make_room(self, *, for_row: bool) -> bool:
        """Keep to the capacity. False when the newcomer, a moment, is itself what has to go."""
        if len(self._rows) + len(self._moments) < self._capacity:
            return True
        if self._moments:
            self._moments.popleft()
            self.dropped_moments += 1
            return True
        if for_row:
            del self._rows[next(iter(self._rows))]
            self.dropped_rows += 1
            return True
        self.dropped_moments += 1
        return False

    # ------------------------------------------------------------------------------------------ on the writer's thread

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        pause = 0.0
        while True:
            with self._changed:
                self._wait(pause)
                closing = self._closing
                rows, self._rows = self._rows, {}
                moments, self._moments = self._moments, deque()
                flushes, self._flushes = self._flushes, []
                job = self._jobs.popleft() if self._jobs else None
            written = True
            try:
                if rows or moments:
                    if connection is None:
                        connection = _connect(self._path)
                    self._commit(connection, [*rows.values(), *moments])
                    if self.failing:
                        log.warning("the ledger %s can be written again", self._path)
                    self.failing, pause = None, 0.0
            except (sqlite3.Error, OSError) as problem:
                written = False
                self._failed(problem)
                pause = min(max(pause * 2, RETRY_SECONDS[0]), RETRY_SECONDS[1])
                self._put_back(rows, moments)
                if connection is not None:  # after an I/O error a fresh connection is the only trustworthy one
                    connection.close()
                    connection = None
            for done in flushes:
                done.set_result(written)
            if job is not None:
                connection = self._do(connection, *job)
            if closing:
                break
        if connection is not None:
            connection.close()
        with self._changed:
            for done in self._flushes:
                done.set_result(False)
            self._flushes.clear()
            for _, undone in self._jobs:
                undone.cancel()
            self._jobs.clear()

    def _do(
        self, connection: sqlite3.Connection | None, job: Callable[[sqlite3.Connection], Any], done: Future[Any]
    ) -> sqlite3.Connection | None:
        if not done.set_running_or_notify_cancel():
            return connection
        try:
            if connection is None:
                connection = _connect(self._path)
            done.set_result(job(connection))
        except Exception as problem:
            if connection is not None:
                connection.close()  # undoes what the job left open
                connection = None
            done.set_exception(problem)
        return connection

    def _wait(self, pause: float) -> None:
        """Until there is something to do; while failing, `pause` seconds. Called with the lock held."""
        if pause:
            deadline = time.monotonic() + pause
            while not (self._closing or self._flushes or self._jobs) and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            return
        while not (self._closing or self._flushes or self._jobs or self._rows or self._moments):
            self._changed.wait()
        deadline = time.monotonic() + LINGER_SECONDS
        while not (self._closing or self._flushes or self._jobs) and (left := deadline - time.monotonic()) > 0:
            self._changed.wait(left)

    def _commit(self, connection: sqlite3.Connection, records: list[Make]) -> None:
        connection.execute("begin immediate")
        try:
            for make in records:
                self._write(connection, make)
            connection.execute("commit")
        except BaseException:
            if connection.in_transaction:
                connection.execute("rollback")
            raise

    def _write(self, connection: sqlite3.Connection, make: Make) -> None:
        """One record. A record that SQLite cannot hold (a lone surrogate, a number beyond 64 bits) is dropped and
        counted: it must not stand in the way of all the others for ever."""
        try:
            for row in make():
                connection.execute(_upsert(row), list(row.values.values()))
        except (sqlite3.OperationalError, OSError):
            raise
        except (sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.DataError, sqlite3.ProgrammingError) as problem:
            self._dropped(problem)
        except sqlite3.DatabaseError:
            raise
        except Exception as problem:
            self._dropped(problem)

    def _dropped(self, problem: Exception) -> None:
        self.dropped_rows += 1
        log.error("a record cannot be stored and was dropped: %s", type(problem).__name__)

    def _failed(self, problem: Exception) -> None:
        self.failures += 1
        if self.failing is None:
            log.error(
                "the ledger %s cannot be written (%s): serving goes on, records wait in memory (at most %d, oldest moments "
                "go first). Free some disk space; if it says malformed, restart sandboxd, which moves the file aside.",
                self._path, problem, self._capacity,
            )  # fmt: skip
        self.failing = str(problem)

    def _put_back(self, rows: dict[Hashable, Make], moments: deque[Make]) -> None:
        """Queue a failed batch again, before what came since; of the same record the newer state stays."""
        with self._changed:
            self._rows = rows | self._rows
            moments.extend(self._moments)
            self._moments = moments
            while len(self._rows) + len(self._moments) > self._capacity:
                self._make_room(for_row=True)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=1.0)
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = normal")
    return connection


def _upsert(row: Row) -> str:
    """Names come from rows.py, never from input."""
    columns = ", ".join(row.values)
    marks = ", ".join("?" * len(row.values))
    sql = f"insert into {row.table} ({columns}) values ({marks})"  # noqa: S608
    if row.key:
        changes = ", ".join(f"{column} = excluded.{column}" for column in row.values if column not in row.key)
        sql += f" on conflict ({', '.join(row.key)}) do update set {changes}"
    return sql
