"""Opening the database file: made when missing, migrated when old, moved aside when damaged, refused when newer."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from sqlite_utils import Database

from ephemeral_sandboxd.errors import Refused, Unavailable
from ephemeral_sandboxd.ledger.schema import migrations, newer_than_ours

log = logging.getLogger(__name__)

INCREMENTAL = 2
"""SQLite's number for `auto_vacuum = incremental`."""


def prepare(path: Path) -> None:
    """Leave a database of the current schema at `path`.

    A file that is damaged (or empty: SQLite would take it for a new database) is moved to `NAME.damaged-DATE` and a new
    one begun. Raises Refused for a database that a newer sandboxd has written, Unavailable when `path` cannot be used.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and (damage := _damage(path)):
        aside = _move_aside(path)
        log.critical("the ledger %s is damaged (%s): moved to %s, a new one begins here", path, damage, aside)
    try:
        with closing(sqlite3.connect(path, timeout=5.0)) as connection:
            path.chmod(0o600)
            _let_it_shrink(connection, path)
            database = Database(connection)
            database.enable_wal()
            if unknown := newer_than_ours(database):
                raise Refused(
                    "The ledger is newer than this sandboxd",
                    f"{path} has been migrated with {', '.join(unknown)}, which this version does not know.",
                    f"Run the newer version, or move the file away: mv {path} {path}.newer",
                )
            migrations.apply(database)
    except (sqlite3.OperationalError, OSError) as problem:
        raise Unavailable(
            "The ledger cannot be opened",
            f"{path}: {problem}.",
            "Check that its directory can be written and has space, and that no other sandboxd uses it.",
        ) from problem


def _let_it_shrink(connection: sqlite3.Connection, path: Path) -> None:
    """Have SQLite keep what it needs to give freed pages back a few at a time: free for a new file, once a rewrite of an older one."""
    if connection.execute("pragma auto_vacuum").fetchone()[0] == INCREMENTAL:
        return
    connection.execute(f"pragma auto_vacuum = {INCREMENTAL}")
    try:
        connection.execute("vacuum")
    except sqlite3.OperationalError as problem:
        log.warning("the ledger %s cannot be rewritten so that pruning shrinks it (%s): tried again at the next start", path, problem)


def _damage(path: Path) -> str | None:
    """What is wrong with the file, None when nothing is."""
    if path.stat().st_size == 0:
        return "it is empty"
    try:
        with closing(sqlite3.connect(path, timeout=5.0)) as connection:
            verdict = connection.execute("pragma quick_check(1)").fetchone()[0]
    except sqlite3.OperationalError:
        return None  # locked, unreadable, no space: opening will say so, and nothing is moved for it
    except sqlite3.DatabaseError as problem:
        return str(problem)
    return None if verdict == "ok" else verdict


def _move_aside(path: Path) -> Path:
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S")
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{stamp}-{number}")
    for suffix in ("", "-wal", "-shm"):  # the log belongs to the damaged file; a new one must not find it
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    return aside
