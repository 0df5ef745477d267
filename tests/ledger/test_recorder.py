"""The ledger: recorded once, kept for good, and published as it happens."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlite_utils import Database

from ephemeral import wire
from ephemeral_sandboxd.errors import BadRequest, NotFound, Refused
from ephemeral_sandboxd.ledger import Recorder
from ephemeral_sandboxd.ledger.writer import Writer

AT = 1_790_000_000.25


def session(number: int = 1, **changes) -> wire.Session:
    return wire.Session.model_validate({"id": f"s{number}", "started_at": AT, "last_at": AT} | changes)


def execution(number: int = 1, **changes) -> wire.Execution:
    values = {
        "id": f"e{number}", "session": "s1", "sandbox": "box1", "state": "done", "verdict": "ok", "tier": "live",
        "created_at": AT, "started_at": AT + 0.001, "ended_at": AT + 0.5, "wait_ms": 1.5, "run_ms": 499.0, "lead_ms": 2000.0,
        "stages": {"thaw_ms": 0.75, "import_ms": 0.25}, "predicted": ["numpy", "pandas"], "needed": ["pandas"],
        "stdout": "SECRET-OUT", "stderr": "SECRET-ERR", "result": "'SECRET-RESULT'", "traceback": "SECRET-TRACE",
        "outputs": [{"mime": "image/png", "data": "U0VDUkVU"}], "code_sha256": "0" * 64, "code": "print('SECRET-CODE')",
    }  # fmt: skip
    return wire.Execution.model_validate(values | changes)


def plan(number: int = 1, **changes) -> wire.PlanRecord:
    asked = wire.Plan(
        session="s1", proposer="seen", at=AT, app="demo", modules=["pandas"], memory_bytes=1 << 30,
        wants=[
            wire.Want(package="pandas", version="2.3.1", probability=0.9, proposer="seen", evidence="import"),
            wire.Want(package="left-pad", probability=0.2, proposer="k2", evidence="k2"),
        ],
    )  # fmt: skip
    values = {"id": number, "session": "s1", "plan": asked, "accepted": ["pandas"], "refused": {"left-pad": "not popular"}}
    return wire.PlanRecord.model_validate(values | changes)


@pytest.fixture
async def recorder(tmp_path: Path) -> AsyncIterator[Recorder]:
    recorder = Recorder(tmp_path / "ledger.db", capture=True)
    yield recorder
    await recorder.close()


async def test_what_is_recorded_reads_back_the_same(recorder: Recorder):
    recorder.session(session(app="demo", sandbox="box1", executions=1, memory_seconds=2.5))
    recorder.execution(execution())
    recorder.plan(plan(outcome="ready", ready_at=AT + 1))
    recorder.moment(wire.Moment(session="s1", at=AT, kind="boot", duration_ms=12.5, detail="spare", data={"n": 1}))
    assert await recorder.get_session("s1") == session(app="demo", sandbox="box1", executions=1, memory_seconds=2.5)
    assert await recorder.get_execution("e1") == execution()
    assert (await recorder.plans("s1")).items == [plan(outcome="ready", ready_at=AT + 1)]
    [moment] = (await recorder.moments("s1")).items
    assert (moment.kind, moment.duration_ms, moment.detail, moment.data) == ("boot", 12.5, "spare", {"n": 1})


async def test_a_second_recording_of_the_same_id_updates_the_row(recorder: Recorder):
    recorder.execution(execution(state="preparing", verdict=None))
    recorder.execution(execution(state="running", verdict=None))
    await recorder.flush()
    recorder.execution(execution())
    assert [e.state for e in (await recorder.executions()).items] == ["done"]


async def test_pages_run_from_newest_to_oldest_and_end(recorder: Recorder):
    for number in range(1, 8):
        recorder.session(session(number))
    seen, before = [], None
    while True:
        page = await recorder.sessions(limit=3, before=before)
        seen += [s.id for s in page.items]
        if page.next is None:
            break
        before = page.next
    assert seen == ["s7", "s6", "s5", "s4", "s3", "s2", "s1"]
    assert len((await recorder.sessions(limit=7)).items) == 7
    assert (await recorder.sessions(limit=7)).next is None


async def test_executions_can_be_read_of_one_session(recorder: Recorder):
    for number in range(6):
        recorder.execution(execution(number, session=f"s{number % 2}"))
    page = await recorder.executions("s1", limit=2)
    assert [e.id for e in page.items] == ["e5", "e3"]
    assert [e.id for e in (await recorder.executions("s1", limit=2, before=page.next)).items] == ["e1"]


async def test_what_is_not_there_is_not_found_and_says_its_id(recorder: Recorder):
    with pytest.raises(NotFound, match="s9"):
        await recorder.get_session("s9")
    with pytest.raises(NotFound, match="e9"):
        await recorder.get_execution("e9")
    with pytest.raises(BadRequest, match="before=nonsense"):
        await recorder.sessions(before="nonsense")


async def test_plan_numbers_go_on_after_a_restart(tmp_path: Path):
    first = Recorder(tmp_path / "ledger.db", capture=False)
    assert [first.next_plan_id(), first.next_plan_id()] == [1, 2]
    first.plan(plan(2))
    await first.close()
    second = Recorder(tmp_path / "ledger.db", capture=False)
    assert second.next_plan_id() == 3
    await second.close()


async def test_without_capture_neither_database_nor_bus_holds_content(tmp_path: Path):
    recorder = Recorder(tmp_path / "ledger.db", capture=False)
    with recorder.bus.subscribe() as live:
        recorder.execution(execution())
        recorder.moment(
            wire.Moment(session="s1", at=AT, kind="user_turn", detail="SECRET", data={"text": "SECRET", "name": "tool", "n": 3})
        )
        recorder.moment(wire.Moment(session="s1", at=AT, kind="repair", detail="pandas"))
        heard = [await anext(live), await anext(live), await anext(live)]
    turn, repair = (await recorder.moments("s1")).items
    kept = await recorder.get_execution("e1")
    await recorder.close()
    assert "SECRET" not in "".join(message.model_dump_json() for message in heard)
    assert (turn.detail, turn.data, repair.detail) == ("", {"name": "tool", "n": 3}, "pandas")
    assert (kept.stdout, kept.code, kept.outputs, kept.tier) == ("", None, [], "live")
    for file in tmp_path.iterdir():
        assert b"SECRET" not in file.read_bytes(), file.name
    row = next(iter(Database(tmp_path / "ledger.db")["executions"].rows))
    assert (row["stdout_bytes"], row["stderr_bytes"], row["outputs"]) == (10, 10, 1)


async def test_times_are_iso_text_and_foreign_keys_are_declared(recorder: Recorder, tmp_path: Path):
    recorder.session(session())
    recorder.execution(execution())
    await recorder.flush()
    database = Database(tmp_path / "ledger.db")
    assert next(iter(database["sessions"].rows))["started_at"] == "2026-09-21T14:13:20.250000Z"
    assert {key.other_table for key in database["executions"].foreign_keys} == {"sessions", "sandboxes"}


async def test_the_views_summarise_tiers_waits_and_predictions(recorder: Recorder, tmp_path: Path):
    recorder.session(session(app="demo", builds=2, wasted=1))
    for number in range(1, 21):
        recorder.execution(execution(number, wait_ms=float(number)))
    recorder.plan(plan())
    recorder.snapshot(wire.Snapshot(id="n1", environments=[], modules=[], size_bytes=1, import_ms=700, created_at=AT, restores=3))
    recorder.environment(wire.Environment(id="v1", python="3.13", requested=["pandas"], packages={"pandas": "2"}, created_at=AT))
    recorder.sandbox(wire.Sandbox(id="box1", session="s1", state="ready", created_at=AT))
    await recorder.flush()
    database = Database(tmp_path / "ledger.db")

    def view(name: str) -> list[dict]:
        return list(database.view(name).rows)

    [tier] = view("tiers")
    assert (tier["tier"], tier["executions"], tier["wait_p50_ms"], tier["wait_p95_ms"]) == ("live", 20, 10.0, 19.0)
    assert view("waits")[0]["thaw_ms"] == 0.75
    assert view("predictions")[0]["foretold"] == 1
    assert {row["package"]: row["executions"] for row in view("packages")} == {"pandas": 20, "left-pad": 0}
    assert view("proposers")[0]["plans"] == 1
    assert view("waste")[0]["wasted"] == 1
    assert view("savings")[0]["imports_saved_ms"] == 2100


async def test_a_slow_listener_loses_the_oldest_messages_and_they_are_counted(recorder: Recorder):
    with recorder.bus.subscribe(capacity=2) as slow, recorder.bus.subscribe() as quick:
        for number in range(5):
            recorder.session(session(number))
        assert [(await anext(slow)).session.id, (await anext(slow)).session.id] == ["s3", "s4"]
        assert (await anext(quick)).session.id == "s0"
        assert slow.dropped == 3
        assert recorder.health()["live_dropped"] == "3"


async def test_closing_ends_every_listener(tmp_path: Path):
    recorder = Recorder(tmp_path / "ledger.db", capture=False)
    live = recorder.bus.subscribe()

    async def listen() -> int:
        return len([message async for message in live])

    listener = asyncio.create_task(listen())
    recorder.session(session())
    await recorder.close()
    assert await asyncio.wait_for(listener, 10) == 1


async def test_a_damaged_database_is_moved_aside_and_a_new_one_begun(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "ledger.db"
    path.write_bytes(b"this was a database once" * 1000)
    recorder = Recorder(path, capture=False)
    recorder.session(session())
    assert (await recorder.get_session("s1")).id == "s1"
    await recorder.close()
    assert [file.read_bytes()[:4] for file in tmp_path.glob("ledger.db.damaged-*")] == [b"this"]
    assert "moved to" in caplog.text


async def test_an_empty_file_does_not_pass_for_a_database(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "ledger.db").touch()
    await Recorder(tmp_path / "ledger.db", capture=False).close()
    assert "it is empty" in caplog.text


async def test_a_database_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path):
    path = tmp_path / "ledger.db"
    await Recorder(path, capture=False).close()
    database = Database(path)
    database["_sqlite_migrations"].insert({"migration_set": "ephemeral", "name": "m999_from_the_future", "applied_at": "later"})
    database.close()
    with pytest.raises(Refused, match="m999_from_the_future"):
        Recorder(path, capture=False)
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.db"]


async def test_the_database_is_readable_by_its_owner_only(recorder: Recorder, tmp_path: Path):
    recorder.session(session())
    await recorder.flush()
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}


async def test_a_record_that_sqlite_cannot_hold_does_not_stop_the_others(recorder: Recorder):
    recorder.execution(execution(1, stdout="lone \udc80 surrogate"))
    recorder.execution(execution(2))
    assert [e.id for e in (await recorder.executions()).items] == ["e2"]
    assert recorder.health() == {"ledger_dropped_rows": "1"}


async def test_while_the_database_is_locked_rows_wait_and_then_arrive(tmp_path: Path):
    path = tmp_path / "ledger.db"
    await Recorder(path, capture=False).close()
    stubborn = sqlite3.connect(path, isolation_level=None)
    stubborn.execute("begin immediate")
    recorder = Recorder(path, capture=False)
    recorder.session(session())
    assert await recorder.flush() is False
    assert "locked" in recorder.health()["ledger_failing"]
    assert (await recorder.sessions()).items == []  # reading still works
    stubborn.execute("rollback")
    stubborn.close()
    async with asyncio.timeout(60):
        while not await recorder.flush():
            await asyncio.sleep(0.05)
    assert (await recorder.get_session("s1")).id == "s1"
    assert recorder.health() == {}
    await recorder.close()


def test_when_the_queue_is_full_moments_go_first_and_are_counted(tmp_path: Path):
    writer = Writer(tmp_path / "no such directory" / "ledger.db", capacity=4)
    for _ in range(3):
        writer.append(list)
    for number in range(4):
        writer.put(number, list)
    assert (writer.dropped_moments, writer.dropped_rows) == (3, 0)
    writer.append(list)
    writer.put(4, list)
    assert (writer.dropped_moments, writer.dropped_rows) == (4, 1)
    assert writer.flush().result(60) is False
    writer.close()


def test_kill_dash_nine_loses_no_flushed_row(tmp_path: Path):
    """A process records and flushes for as long as it lives, telling us each id once its flush has returned."""
    path = tmp_path / "ledger.db"
    program = textwrap.dedent("""
        import asyncio, sys
        from pathlib import Path
        from ephemeral import wire
        from ephemeral_sandboxd.ledger import Recorder

        async def main():
            recorder = Recorder(Path(sys.argv[1]), capture=False)
            number = recorder.next_plan_id()
            while True:
                plan = wire.Plan(session="s1", proposer="seen", at=1.0)
                recorder.plan(wire.PlanRecord(id=number, session="s1", plan=plan))
                assert await recorder.flush()
                print(number, flush=True)
                number = recorder.next_plan_id()

        asyncio.run(main())
    """)
    acknowledged: list[int] = []
    for rounds in range(3):
        child = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        for _ in range(20 + 17 * rounds):
            acknowledged.append(int(child.stdout.readline()))
        os.kill(child.pid, signal.SIGKILL)
        acknowledged += [int(line) for line in child.stdout if line.endswith("\n")]
        child.stdout.close()
        child.wait()
    kept = {row["id"] for row in Database(path)["plans"].rows}
    assert set(acknowledged) <= kept
    assert len(acknowledged) == len(set(acknowledged)), "an id was given out twice"
    assert not list(tmp_path.glob("*.damaged-*"))
