"""What ``Identity`` remembers: which sessions were at which *place*, a place being a point of a conversation just after an answer.

``Memory`` is one process's own. ``FileMemory`` keeps the same in a SQLite file, for several processes and over restarts. Both
are bounded, know places by hash only, and never raise.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, TypeVar

from ephemeral.sqlite_file import SqliteFile

PLACES = 32_768
"""Places that a process remembers on its own, some ten megabytes."""

ROWS = 400_000
"""Places that a file remembers, some sixty megabytes: about a hundred thousand turns."""

AGE_SECONDS = 30 * 24 * 3600.0

# What is known of a place. Two sessions may be at one place only if their apps and providers said the same so far.
_ALONE = 0  # one session only was ever here, and was not heard of since
_ALONE_GONE = 1  # one session only was ever here, and has gone on
_LATEST = 2  # several were here; all have gone on but one
_LATEST_GONE = 3  # several were here; all have gone on
_SEVERAL = 4  # several are here: nobody can say who speaks next


class Place(NamedTuple):
    session: str
    state: int

    @property
    def owner(self) -> str:
        """The session that a request continues whose *latest* answer this is; empty when that cannot be told.

        Where several were, it is the one that has not gone on: each of the others is known by later answers of its own.
        """
        return self.session if self.state in (_ALONE, _ALONE_GONE, _LATEST) else ""

    @property
    def only(self) -> str:
        """The session that was here when no other ever was, else empty."""
        return self.session if self.state in (_ALONE, _ALONE_GONE) else ""


def _arrived(place: Place | None, session: str) -> Place:
    if place is None:
        return Place(session, _ALONE)
    if place.session == session:
        return Place(session, {_ALONE_GONE: _ALONE, _LATEST_GONE: _LATEST}.get(place.state, place.state))
    return Place(session, _LATEST if place.state in (_ALONE_GONE, _LATEST_GONE) else _SEVERAL)


def _left(place: Place, session: str) -> Place:
    if place.session != session:
        return place
    return Place(session, {_ALONE: _ALONE_GONE, _LATEST: _LATEST_GONE}.get(place.state, place.state))


class Memory:
    """The memory of one process: the ``limit`` places it heard of last. Not safe for several threads at once."""

    def __init__(self, limit: int = PLACES) -> None:
        self._limit = limit
        self._places: OrderedDict[bytes, Place] = OrderedDict()

    def __len__(self) -> int:
        return len(self._places)

    def look(self, keys: Sequence[bytes]) -> dict[bytes, Place]:
        """What is known of the places with these keys (16 bytes each); unknown ones are left out."""
        return {key: self._places[key] for key in keys if key in self._places}

    def record(self, session: str, arrived: Iterable[bytes], left: Iterable[bytes] = ()) -> None:
        """``session`` has gone on from the places ``left``, and was given an answer that puts it at the places ``arrived``."""
        for key in left:
            if key in self._places:
                self._places[key] = _left(self._places[key], session)
        for key in arrived:
            self._places[key] = _arrived(self._places.get(key), session)
            self._places.move_to_end(key)
        while len(self._places) > self._limit:
            self._places.popitem(last=False)

    def close(self) -> None:
        """Nothing is open here."""


_SCHEMA = """
CREATE TABLE IF NOT EXISTS places (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, session TEXT NOT NULL, state INTEGER NOT NULL, seen_at REAL NOT NULL
);
"""
_SAVE = """
INSERT INTO places (key, session, state, seen_at) VALUES (?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET session = excluded.session, state = excluded.state, seen_at = excluded.seen_at
"""
_OWN_PLACES = 4096  # for when the file cannot be used
_BUSY_SECONDS_AT_FIRST = 1.0  # several processes may begin the file together
_BUSY_SECONDS = 0.02
_PATIENCE_SECONDS = (0.25, 30.0)  # before the file is tried again: at first, and at most
_KEYS_PER_QUERY = 256
_UNSAVED = 1024
_RECORDS_BETWEEN_PRUNING = 256
_PRUNED_AT_ONCE = 4096

_Record = tuple[str, tuple[bytes, ...], tuple[bytes, ...]]
_Result = TypeVar("_Result")


class FileMemory:
    """The memory of all processes that name the same file, made (0600) when it is not there. Open it after forking.

    The file holds session ids and, of places, hashes keyed with random bytes of its own. What is recorded is in it when
    ``record`` returns. Whatever is wrong with it (locked, read-only, disk full, not a database) the process's own memory
    carries on: ``failures`` counts, what could not be saved is saved later, and a damaged file is put aside as
    ``NAME.damaged`` and begun anew. ``clock`` is the wall clock. Not safe for several threads at once.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        rows: int = ROWS,
        age_seconds: float = AGE_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._file = SqliteFile(Path(path), _SCHEMA, _BUSY_SECONDS, _BUSY_SECONDS_AT_FIRST)
        self._rows = rows
        self._age_seconds = age_seconds
        self._clock = clock
        self._own = Memory(_OWN_PLACES)
        self._unsaved: deque[_Record] = deque(maxlen=_UNSAVED)
        self._records = 0
        self._patience = _PATIENCE_SECONDS[0]
        self._try_again = 0.0  # of the monotonic clock
        self._guarded(lambda connection: None)

    @property
    def failures(self) -> int:
        """How often the file could not be used."""
        return self._file.failures

    def look(self, keys: Sequence[bytes]) -> dict[bytes, Place]:
        """As ``Memory.look``. The file knows better than the process, which hears only of its own sessions."""
        return {**self._own.look(keys), **(self._guarded(lambda connection: self._read(connection, keys)) or {})}

    def record(self, session: str, arrived: Iterable[bytes], left: Iterable[bytes] = ()) -> None:
        """As ``Memory.record``, in one transaction."""
        record = (session, tuple(arrived), tuple(left))
        if not (record[1] or record[2]):
            return
        self._own.record(*record)
        self._unsaved.append(record)
        if self._guarded(self._save):
            self._unsaved.clear()

    def close(self) -> None:
        self._file.close()

    # ----------------------------------------------------------------------------------------------------- the file

    def _guarded(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result | None:
        """What ``work`` returns; None when the file cannot be used now, and for a while after that."""
        if time.monotonic() < self._try_again:
            return None
        before = self._file.failures
        result = self._file.use(work)
        if self._file.failures == before:
            self._patience = _PATIENCE_SECONDS[0]
        else:
            self._try_again = time.monotonic() + self._patience
            self._patience = min(self._patience * 2, _PATIENCE_SECONDS[1])
        return result

    def _hidden(self, key: bytes) -> bytes:
        return blake2b(key, key=self._file.secret, digest_size=16).digest()

    def _read(self, connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, Place]:
        named = {self._hidden(key): key for key in keys}
        hidden = list(named)
        found: dict[bytes, Place] = {}
        for start in range(0, len(hidden), _KEYS_PER_QUERY):
            some = hidden[start : start + _KEYS_PER_QUERY]
            query = f"SELECT key, session, state FROM places WHERE key IN ({','.join('?' * len(some))})"  # noqa: S608
            found.update((named[key], Place(session, state)) for key, session, state in connection.execute(query, some))
        return found

    def _save(self, connection: sqlite3.Connection) -> bool:
        now = self._clock()
        connection.execute("BEGIN IMMEDIATE")  # nobody else changes a place between our reading and our writing
        touched = list({key for _, arrived, left in self._unsaved for key in (*arrived, *left)})
        known = self._read(connection, touched)
        places = dict(known)
        for session, arrived, left in self._unsaved:
            for key in left:
                if key in places:
                    places[key] = _left(places[key], session)
            for key in arrived:
                places[key] = _arrived(places.get(key), session)
        changed = [(self._hidden(key), *place, now) for key, place in places.items() if place != known.get(key)]
        connection.executemany(_SAVE, changed)
        if self._records % _RECORDS_BETWEEN_PRUNING == 0:
            self._prune(connection, now)
        connection.execute("COMMIT")
        self._records += 1
        return True

    def _prune(self, connection: sqlite3.Connection, now: float) -> None:
        """Forget what came first (ids only grow): all above the limit, and of the rest some of what is too old."""
        connection.execute("DELETE FROM places WHERE id <= (SELECT max(id) FROM places) - ?", (self._rows,))
        oldest = "SELECT id FROM places ORDER BY id LIMIT ?"
        connection.execute(
            f"DELETE FROM places WHERE seen_at < ? AND id IN ({oldest})",  # noqa: S608
            (now - self._age_seconds, _PRUNED_AT_ONCE),
        )
