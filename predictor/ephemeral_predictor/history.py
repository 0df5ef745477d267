"""What sessions of an app really imported, and what memory that took. Learned from sandboxd's ledger, and forgettable.

The file holds names of apps and packages, and counts; of sessions only hashes keyed with random bytes of its own, so that none counts
twice; never a word of a conversation. Counts fade: by half in ``HALF_LIFE_DAYS``, and each session of an app takes a five-hundredth off
those before it.
"""

from __future__ import annotations

import logging
import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

from ephemeral import names
from ephemeral.sqlite_file import SqliteFile

log = logging.getLogger(__name__)

FEWEST_SESSIONS = 5
FEWEST_RUNS = 5
HALF_LIFE_DAYS = 30.0
AGE_DAYS = 180.0

APPS = 200
PACKAGES = 200  # of one app
RUNS_OF_A_SET = 20
RUNS = 4_000
COUNTED = 20_000  # sessions that are known to have been counted

_FADED = 2.0  # sessions; what is left of an app that has been silent for long says nothing
_FORGETS = 1 / 500
_LESS, _MORE = 0.5, 1.5
"""Half a session less for each package, which is known only because it came up; one and a half sessions more without any. Chosen on half of eleven
collections of tasks, each taken for an app, and checked on the other half: calibration error .01, against .06 for adding (0.1, 2)."""
_QUANTILE = 0.95
_BUSY_SECONDS = 0.1  # whoever waits here is the predictor itself; what could not be recorded is tried again
_PACKAGE = re.compile(r"[a-z0-9]([a-z0-9-]{0,98}[a-z0-9])?")
_PACKAGES_OF_A_RUN = 64
_DAY = 86_400.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS apps (
    app TEXT PRIMARY KEY, seen INTEGER NOT NULL, seen_with_code INTEGER NOT NULL, sessions REAL NOT NULL, with_code REAL NOT NULL, at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS packages (app TEXT NOT NULL, package TEXT NOT NULL, sessions REAL NOT NULL, PRIMARY KEY (app, package));
CREATE TABLE IF NOT EXISTS runs (id INTEGER PRIMARY KEY, app TEXT NOT NULL, packages TEXT NOT NULL, peak_bytes INTEGER, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS counted (id INTEGER PRIMARY KEY, session BLOB NOT NULL UNIQUE, with_code INTEGER NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS forgotten (app BLOB PRIMARY KEY, at REAL NOT NULL);
"""

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Run:
    """One execution. ``packages`` are all that its sandbox had imported by then, in normal form; ``peak_bytes`` is the most memory that the
    sandbox took meanwhile, None where nobody knows. ``out_of_memory``: it died of too little."""

    packages: frozenset[str]
    peak_bytes: int | None = None
    out_of_memory: bool = False


@dataclass(frozen=True)
class Observed:
    """One session that has ended. Times are Unix seconds, by sandboxd's clock. Without ``runs`` it had no code."""

    session: str
    app: str
    started_at: float
    ended_at: float
    runs: tuple[Run, ...] = ()


@dataclass
class _App:
    seen: int
    seen_with_code: int
    sessions: float
    with_code: float
    at: float
    packages: dict[str, float] = field(default_factory=dict)


class History:
    """The history in the file ``path``, made (0600) when it is not there; other processes may have it open too. ``clock`` is the wall clock.

    Only ``forget`` and ``forget_all`` raise (sqlite3.Error, OSError): whatever else is wrong with the file, nothing is known, and ``failures``
    counts. A damaged file is put aside as ``NAME.damaged`` and begun anew. Not safe for several threads at once.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._file = SqliteFile(path, _SCHEMA, _BUSY_SECONDS, secure_delete=True)  # what is forgotten is overwritten
        self._version: tuple[int, int, int] | None = None  # of the file that the two below were read from
        self._apps: dict[str, _App] = {}
        self._runs: list[tuple[frozenset[str], float]] = []
        self._changes = 0
        self._guarded(lambda connection: None)

    @property
    def failures(self) -> int:
        """How often the file could not be used."""
        return self._file.failures

    def close(self) -> None:
        self._file.close()
        self._version = None

    # --------------------------------------------------------------------------------------------------- what it says

    def prior(self, app: str) -> dict[str, float]:
        """Package (normal form) -> the probability that a session of ``app`` which runs code imports it, smoothed.

        Empty where fewer than FEWEST_SESSIONS of its sessions ran code, or those were long ago.
        """
        known = self._app(app)
        if known is None or known.seen_with_code < FEWEST_SESSIONS or known.with_code < _FADED:
            return {}
        return {package: (count - _LESS) / (known.with_code + _MORE) for package, count in known.packages.items() if count > _LESS}

    def needs_code(self, app: str) -> float | None:
        """The probability that a session of ``app`` runs code, smoothed; None where fewer than FEWEST_SESSIONS are known, or those were long ago."""
        known = self._app(app)
        if known is None or known.seen < FEWEST_SESSIONS or known.sessions < _FADED:
            return None
        return (known.with_code + 1) / (known.sessions + 2)

    def memory_bytes(self, packages: Iterable[str]) -> int | None:
        """What a sandbox took, at the 95th percentile, when code ran in it that had imported at least ``packages``, whatever the app.

        None where fewer than FEWEST_RUNS such runs are known, or so many of them died of too little memory that nobody knows how much is enough.
        """
        self._refresh()
        asked = {names.normalize(package) for package in packages}
        peaks = sorted(peak for held, peak in self._runs if asked <= held)
        if len(peaks) < FEWEST_RUNS:
            return None
        peak = peaks[min(len(peaks) - 1, int(_QUANTILE * len(peaks)))]
        return int(peak) if peak != float("inf") else None

    def apps(self) -> dict[str, int]:
        """App -> how many of its sessions were counted, the latest app first."""
        self._refresh()
        return {app: known.seen for app, known in sorted(self._apps.items(), key=lambda item: -item[1].at)}

    # --------------------------------------------------------------------------------------------------- what it learns

    def settled(self, session: str, ended_at: float) -> bool:
        """Whether there is nothing more to learn from ``session``, which ended then. True also while the file cannot be read."""

        def look(connection: sqlite3.Connection) -> bool:
            row = connection.execute("SELECT with_code, at FROM counted WHERE session = ?", (self._hidden(session),)).fetchone()
            return row is not None and (bool(row[0]) or ended_at <= row[1])

        return self._guarded(look) is not False

    def record(self, observed: Observed) -> bool:
        """Count a session, once: one that was counted without code and went on is counted for its code. False when that failed."""

        def save(connection: sqlite3.Connection) -> bool:
            connection.execute("BEGIN IMMEDIATE")
            self._count(connection, observed)
            connection.execute("COMMIT")
            return True

        done = self._guarded(save)
        self._changes += 1
        return bool(done)

    def forget(self, app: str) -> int:
        """Forget all that was learned from ``app``; what its sessions so far did will not be learned again. How many had been counted."""
        return self._forget([app], app)

    def forget_all(self) -> int:
        """Forget all apps. How many sessions had been counted."""
        return self._forget(list(self.apps()), None)

    # ------------------------------------------------------------------------------------------------------- counting

    def _count(self, connection: sqlite3.Connection, observed: Observed) -> None:
        key, now = self._hidden(observed.session), self._clock()
        before = connection.execute("SELECT with_code FROM counted WHERE session = ?", (key,)).fetchone()
        connection.execute(
            "INSERT INTO counted (session, with_code, at) VALUES (?, ?, ?) ON CONFLICT (session) DO UPDATE "
            "SET with_code = max(with_code, excluded.with_code), at = max(at, excluded.at)",
            (key, bool(observed.runs), observed.ended_at),
        )
        is_new, has_new_code = before is None, bool(observed.runs) and not (before and before[0])
        if not (is_new or has_new_code) or self._is_forgotten(connection, observed) or observed.ended_at < now - AGE_DAYS * _DAY:
            return
        app, at = observed.app[:100], min(observed.ended_at, now)
        self._fade(connection, app, at)
        connection.execute(
            "INSERT INTO apps VALUES (:app, :new, :code, :new, :code, :at) ON CONFLICT (app) DO UPDATE SET seen = seen + :new, "
            "seen_with_code = seen_with_code + :code, sessions = sessions + :new, with_code = with_code + :code, at = max(at, :at)",
            {"app": app, "new": is_new, "code": has_new_code, "at": at},
        )
        if has_new_code:
            imported = sorted({package for run in observed.runs for package in run.packages if _PACKAGE.fullmatch(package)})
            connection.executemany(
                "INSERT INTO packages VALUES (?, ?, 1.0) ON CONFLICT (app, package) DO UPDATE SET sessions = sessions + 1",
                [(app, package) for package in imported],
            )
            self._keep_runs(connection, app, observed.runs, at)
        self._bound(connection, app, now)

    @staticmethod
    def _fade(connection: sqlite3.Connection, app: str, at: float) -> None:
        row = connection.execute("SELECT at FROM apps WHERE app = ?", (app,)).fetchone()
        if row is None:
            return
        left = _left(at - row[0]) * (1 - _FORGETS)
        connection.execute("UPDATE apps SET sessions = sessions * ?, with_code = with_code * ? WHERE app = ?", (left, left, app))
        connection.execute("UPDATE packages SET sessions = sessions * ? WHERE app = ?", (left, app))

    @staticmethod
    def _keep_runs(connection: sqlite3.Connection, app: str, runs: Sequence[Run], at: float) -> None:
        """A peak of NULL stands for one that was too high to be known."""
        for run in runs:
            if run.peak_bytes is None and not run.out_of_memory:
                continue
            held = " ".join(sorted(package for package in run.packages if _PACKAGE.fullmatch(package))[:_PACKAGES_OF_A_RUN])
            peak = None if run.out_of_memory else run.peak_bytes
            connection.execute("INSERT INTO runs (app, packages, peak_bytes, at) VALUES (?, ?, ?, ?)", (app, held, peak, at))
            connection.execute(
                "DELETE FROM runs WHERE packages = ? AND id NOT IN (SELECT id FROM runs WHERE packages = ? ORDER BY id DESC LIMIT ?)",
                (held, held, RUNS_OF_A_SET),
            )

    @staticmethod
    def _bound(connection: sqlite3.Connection, app: str, now: float) -> None:
        """Whatever is fed, the file stays small: what is rare goes first, then what is old."""
        oldest = now - AGE_DAYS * _DAY
        connection.execute(
            "DELETE FROM packages WHERE app = ? AND package NOT IN (SELECT package FROM packages WHERE app = ? ORDER BY sessions DESC, package LIMIT ?)",
            (app, app, PACKAGES),
        )
        connection.execute("DELETE FROM apps WHERE at < ? OR app NOT IN (SELECT app FROM apps ORDER BY at DESC LIMIT ?)", (oldest, APPS))
        connection.execute("DELETE FROM packages WHERE app NOT IN (SELECT app FROM apps)")
        connection.execute("DELETE FROM runs WHERE at < ? OR id NOT IN (SELECT id FROM runs ORDER BY id DESC LIMIT ?) OR app NOT IN (SELECT app FROM apps)", (oldest, RUNS))
        connection.execute("DELETE FROM counted WHERE id <= (SELECT max(id) FROM counted) - ?", (COUNTED,))

    # ------------------------------------------------------------------------------------------------------ forgetting

    def _forget(self, apps: Sequence[str], named: str | None) -> int:
        counted = sum(self.apps().get(app, 0) for app in apps)
        connection = self._file.opened()
        try:
            connection.execute("BEGIN IMMEDIATE")
            for table in ("apps", "packages", "runs"):
                if named is None:
                    connection.execute(f"DELETE FROM {table}")  # noqa: S608
                else:
                    connection.execute(f"DELETE FROM {table} WHERE app = ?", (named,))  # noqa: S608
            connection.execute("INSERT OR REPLACE INTO forgotten VALUES (?, ?)", (self._hidden_app(named), self._clock()))
            connection.execute("COMMIT")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.rollback()
            raise
        self._changes += 1
        with suppress(sqlite3.Error):  # while another reads, the old pages go with its next checkpoint
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return counted

    def _is_forgotten(self, connection: sqlite3.Connection, observed: Observed) -> bool:
        keys = (self._hidden_app(observed.app[:100]), self._hidden_app(None))
        at = connection.execute("SELECT max(at) FROM forgotten WHERE app IN (?, ?)", keys).fetchone()[0]
        return at is not None and observed.started_at <= at

    def _hidden(self, text: str) -> bytes:
        return blake2b(text.encode(errors="replace"), key=self._file.secret, digest_size=16).digest()

    def _hidden_app(self, app: str | None) -> bytes:
        return self._hidden("all apps" if app is None else f"app {app}")

    # --------------------------------------------------------------------------------------------------------- reading

    def _app(self, app: str) -> _App | None:
        """What is left of it by now."""
        self._refresh()
        known = self._apps.get(app[:100])
        if known is None:
            return None
        left = _left(self._clock() - known.at)
        packages = {package: count * left for package, count in known.packages.items()}
        return _App(known.seen, known.seen_with_code, known.sessions * left, known.with_code * left, known.at, packages)

    def _refresh(self) -> None:
        """Read everything again if anybody has changed the file. That is asked at each prediction: it takes microseconds."""

        def look(connection: sqlite3.Connection) -> bool:
            version = (self._file.openings, connection.execute("PRAGMA data_version").fetchone()[0], self._changes)
            if version == self._version:
                return True
            columns = "app, seen, seen_with_code, sessions, with_code, at"
            self._apps = {app: _App(*rest) for app, *rest in connection.execute(f"SELECT {columns} FROM apps")}  # noqa: S608
            for app, package, count in connection.execute("SELECT app, package, sessions FROM packages"):
                if app in self._apps:
                    self._apps[app].packages[package] = count
            self._runs = [
                (frozenset(held.split()), float("inf") if peak is None else float(peak))
                for held, peak in connection.execute("SELECT packages, peak_bytes FROM runs")
            ]
            self._version = version
            return True

        if not self._guarded(look):
            self._apps, self._runs, self._version = {}, [], None

    # -------------------------------------------------------------------------------------------------------- the file

    def _guarded(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result | None:
        """What ``work`` returns; None when the file cannot be used."""
        before = self._file.failures
        result = self._file.use(work)
        if before == 0 < self._file.failures:
            log.warning("the history at %s cannot be used now: nothing is learned, and nothing expected from it", self._path)
        return result


def _left(seconds: float) -> float:
    """What is left of a count after so long."""
    return float(0.5 ** (max(0.0, seconds) / (HALF_LIFE_DAYS * _DAY)))
