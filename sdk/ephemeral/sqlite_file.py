"""A SQLite file that several processes share and that nobody may wait for or fail by: what cannot be used now is done without.

It holds 32 random bytes of its own (``secret``), by which whoever keeps hashes in it can key them. Standard library only.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

_Result = TypeVar("_Result")

_OWN_TABLE = "CREATE TABLE IF NOT EXISTS secret (id INTEGER PRIMARY KEY CHECK (id = 0), bytes BLOB NOT NULL);"


class SqliteFile:
    """The file ``path``, made (0600) with ``schema`` (``CREATE … IF NOT EXISTS``) when it is not there. Open it after forking.

    ``busy_seconds`` is how long another process's transaction is waited for; ``first_busy_seconds`` the same at the first opening, when
    several may make the file together. ``secure_delete``: what is deleted is overwritten. A damaged file is put aside as ``NAME.damaged``
    and begun anew; one that was removed or replaced is noticed. Not safe for several threads at once.
    """

    def __init__(
        self, path: Path, schema: str, busy_seconds: float, first_busy_seconds: float | None = None, secure_delete: bool = False
    ) -> None:
        self.failures = 0
        self.secret = b""
        self.openings = 0
        """How often it was opened: what was read before may stand in another file now."""
        self._path = path
        self._schema = schema
        self._busy_seconds = busy_seconds
        self._opening_seconds = first_busy_seconds or busy_seconds
        self._secure_delete = secure_delete
        self._connection: sqlite3.Connection | None = None
        self._inode = 0

    def use(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result | None:
        """What ``work`` returns; None, and a count in ``failures``, when the file cannot be used now. What it had begun is undone."""
        try:
            return work(self.opened())
        except (sqlite3.Error, OSError) as problem:
            self.failed(problem)
            return None

    def failed(self, problem: Exception) -> None:
        """Deal with what went wrong with the file."""
        self.failures += 1
        if self._connection is not None and self._connection.in_transaction:
            with suppress(sqlite3.Error):
                self._connection.rollback()
        if getattr(problem, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            self._put_aside()

    def opened(self) -> sqlite3.Connection:
        """The connection, in autocommit mode. Raises sqlite3.Error and OSError."""
        if self._connection is not None and self._found() == self._inode:
            return self._connection
        self.close()
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, 0o600)  # SQLite gives its other files the same mode
            self._inode = os.fstat(descriptor).st_ino
        finally:
            os.close(descriptor)
        connection = sqlite3.connect(self._path, timeout=self._opening_seconds, isolation_level=None, check_same_thread=False)
        self._opening_seconds = self._busy_seconds
        self.openings += 1
        self._connection = connection  # also where the next lines fail: a damaged file is put aside by its inode
        if self._secure_delete:
            connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")  # after a power cut the last of it may be missing, no more
        if not self._is_made(connection):
            connection.executescript(f"BEGIN IMMEDIATE; {_OWN_TABLE} {self._schema} COMMIT;")
            connection.execute("INSERT OR IGNORE INTO secret VALUES (0, ?)", (secrets.token_bytes(32),))
        self.secret = bytes(connection.execute("SELECT bytes FROM secret").fetchone()[0])
        connection.execute(f"PRAGMA busy_timeout = {self._busy_seconds * 1000:.0f}")
        return connection

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _is_made(self, connection: sqlite3.Connection) -> bool:
        """Whether the schema is there: looking costs no lock. The number of its tables tells, and the secret is made last."""
        tables = connection.execute("SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'").fetchone()[0]
        made: bool = tables > self._schema.count("CREATE TABLE") and connection.execute("SELECT count(*) FROM secret").fetchone()[0] == 1
        return made

    def _found(self) -> int:
        """The inode of what is at our path now; 0 when nothing is."""
        try:
            return os.stat(self._path).st_ino
        except FileNotFoundError:
            return 0

    def _put_aside(self) -> None:
        """The damaged file out of the way, unless another process has done that already."""
        self.close()
        with suppress(OSError):
            if self._found() == self._inode:
                for suffix in ("-wal", "-shm"):
                    Path(f"{self._path}{suffix}").unlink(missing_ok=True)
                self._path.replace(f"{self._path}.damaged")
