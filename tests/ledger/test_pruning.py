"""Forgetting: what is old goes, what is active stays, and the file becomes smaller."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlite_utils import Database

from ephemeral import wire
from ephemeral_sandboxd.errors import Unavailable
from ephemeral_sandboxd.ledger import Recorder
from ephemeral_sandboxd.ledger.pruning import ROWS_A_BATCH

DAY = 86_400.0
TABLES = ("sessions", "moments", "plan_packages", "plans", "execution_outputs", "executions", "sandboxes")


@pytest.fixture
async def recorder(tmp_path: Path) -> AsyncIterator[Recorder]:
    recorder = Recorder(tmp_path / "ledger.db", capture=True)
    yield recorder
    await recorder.close()


def record(recorder: Recorder, session_id: str, ended_days_ago: float | None, moments: int = 3, padding: int = 10) -> None:
    """A session with something in every table that hangs below it; None: it is active, and began a year ago."""
    began = time.time() - 365 * DAY
    ended = None if ended_days_ago is None else time.time() - ended_days_ago * DAY
    recorder.session(wire.Session(
        id=session_id, started_at=began, last_at=ended or began, ended_at=ended, state="active" if ended is None else "ended", sandbox=f"box-{session_id}",
    ))  # fmt: skip
    recorder.sandbox(wire.Sandbox(id=f"box-{session_id}", session=session_id, state="deleted", created_at=began))
    recorder.execution(wire.Execution(
        id=f"e-{session_id}", session=session_id, state="done", verdict="ok", created_at=began, stdout="x" * padding,
        outputs=[wire.Output(mime="text/html", data="<b>")],
    ))  # fmt: skip
    asked = wire.Plan(session=session_id, proposer="seen", wants=[wire.Want(package="numpy", probability=1, proposer="seen")])
    recorder.plan(wire.PlanRecord(id=recorder.next_plan_id(), session=session_id, plan=asked))
    for number in range(moments):
        recorder.moment(wire.Moment(session=session_id, at=began + number, kind="mount", detail="m" * min(padding, 4000)))


def counts(path: Path) -> dict[str, int]:
    database = Database(path)
    found = {table: database.table(table).count for table in TABLES}
    database.close()
    return found


async def test_what_ended_long_ago_goes_with_all_that_belongs_to_it(recorder: Recorder, tmp_path: Path):
    record(recorder, "old", 40)
    record(recorder, "young", 5)
    record(recorder, "active", None)
    pruned = await recorder.prune()
    assert pruned.rows == {"sessions": 1, "moments": 3, "plan_packages": 1, "plans": 1, "execution_outputs": 1, "executions": 1, "sandboxes": 1}
    assert counts(tmp_path / "ledger.db") == {table: 2 * number for table, number in pruned.rows.items()}
    assert {session.id for session in (await recorder.sessions()).items} == {"young", "active"}
    assert sum((await recorder.prune()).rows.values()) == 0, "the second time there is nothing left to do"


async def test_a_dry_run_counts_the_same_and_deletes_nothing(recorder: Recorder, tmp_path: Path):
    for number in range(20):
        record(recorder, f"old{number}", 40, padding=1000)
    record(recorder, "young", 5)
    foretold = await recorder.prune(dry_run=True)
    assert counts(tmp_path / "ledger.db")["sessions"] == 21
    done = await recorder.prune()
    assert foretold.rows == done.rows
    assert foretold.dry_run
    assert not done.dry_run
    assert foretold.freed_bytes > 0


async def test_an_age_of_its_own_goes_before_the_setting_and_0_days_kept_means_all_that_ended(recorder: Recorder):
    record(recorder, "young", 5)
    record(recorder, "active", None)
    assert (await recorder.prune(6)).rows["sessions"] == 0
    assert (await recorder.prune(4)).rows["sessions"] == 1
    record(recorder, "now", 0)
    assert (await recorder.prune(0)).rows["sessions"] == 1
    assert [session.id for session in (await recorder.sessions()).items] == ["active"]


async def test_with_a_retention_of_0_nothing_is_too_old(recorder: Recorder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EPHEMERAL_RETENTION_DAYS", "0")
    record(recorder, "ancient", 4000)
    assert (await recorder.prune()).rows["sessions"] == 0
    assert (await recorder.prune(dry_run=True)).rows["sessions"] == 0


async def test_a_database_that_is_too_large_loses_its_oldest_ended_sessions_and_shrinks(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for number in range(40):
        record(recorder, f"s{number:02}", 20 - number / 10, padding=50_000)
    record(recorder, "active", None, padding=50_000)
    await recorder.flush()
    monkeypatch.setenv("EPHEMERAL_LEDGER_BYTES", str(1 << 20))
    before = await recorder.prune(dry_run=True)
    pruned = await recorder.prune()
    left = [session.id for session in (await recorder.sessions()).items]
    assert 0 < pruned.rows["sessions"] < 40
    assert abs(pruned.rows["sessions"] - before.rows["sessions"]) <= 5, "the dry run foretold about as many"
    assert left == ["active", *sorted(left[1:], reverse=True)]
    assert left[1] == "s39", "the youngest stay"
    assert (tmp_path / "ledger.db").stat().st_size == pruned.size_bytes <= 1 << 20
    assert not (tmp_path / "ledger.db-wal").stat().st_size


async def test_when_everything_is_active_a_budget_deletes_nothing_and_says_so(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    record(recorder, "active", None)
    monkeypatch.setenv("EPHEMERAL_LEDGER_BYTES", "1000")
    assert sum((await recorder.prune()).rows.values()) == 0
    assert "active sessions" in caplog.text


async def test_recording_goes_on_between_the_batches(recorder: Recorder):
    record(recorder, "old", 40, moments=3000)
    assert await recorder.flush()
    pruning = asyncio.create_task(recorder.prune())
    flushed = 0
    while not pruning.done():
        recorder.session(wire.Session(id=f"new{flushed}", started_at=1, last_at=1))
        assert await recorder.flush()
        flushed += 1
    assert (await pruning).rows["moments"] == 3000 > ROWS_A_BATCH
    assert flushed > 2
    assert len((await recorder.sessions(limit=500)).items) >= min(flushed, 500)


async def test_a_session_that_goes_on_meanwhile_is_left_alone(recorder: Recorder):
    record(recorder, "back", 40)
    await recorder.flush()
    recorder.session(wire.Session(id="back", started_at=1, last_at=time.time()))
    assert (await recorder.prune()).rows["sessions"] == 0
    assert (await recorder.get_execution("e-back")).session == "back"


async def test_sandboxes_that_never_had_a_session_go_when_they_are_gone(recorder: Recorder):
    old = time.time() - 40 * DAY
    recorder.sandbox(wire.Sandbox(id="spare", state="spare", created_at=old))
    recorder.sandbox(wire.Sandbox(id="gone", state="deleted", created_at=old))
    assert (await recorder.prune(dry_run=True)).rows["sandboxes"] == 1
    assert (await recorder.prune()).rows["sandboxes"] == 1


async def test_a_locked_database_is_an_error_that_says_what_to_do(recorder: Recorder, tmp_path: Path):
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as stubborn:
        stubborn.execute("begin immediate")
        with pytest.raises(Unavailable, match="cannot be pruned"):
            await recorder.prune()
        stubborn.execute("rollback")
    record(recorder, "old", 40)
    assert (await recorder.prune()).rows["sessions"] == 1


async def test_a_database_of_an_earlier_version_learns_to_shrink(tmp_path: Path):
    path = tmp_path / "ledger.db"
    recorder = Recorder(path, capture=True)
    record(recorder, "old", 40, moments=50, padding=4000)
    await recorder.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as earlier:
        earlier.execute("pragma auto_vacuum = none")
        earlier.execute("vacuum")
        assert earlier.execute("pragma auto_vacuum").fetchone() == (0,)
    recorder = Recorder(path, capture=True)
    pruned = await recorder.prune()
    await recorder.close()
    assert pruned.rows["moments"] == 50
    assert pruned.freed_bytes > 150_000


async def test_a_vacuum_leaves_no_free_page(recorder: Recorder, tmp_path: Path):
    record(recorder, "old", 40, moments=200, padding=4000)
    await recorder.prune(vacuum=True)
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as database:
        assert database.execute("pragma freelist_count").fetchone() == (0,)
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)
