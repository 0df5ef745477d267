"""After kill -9: the next daemon learns what was going on, and closes the books on it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing
from pathlib import Path

import pytest
from sqlite_utils import Database

from ephemeral import wire
from ephemeral_sandboxd.errors import Unavailable
from ephemeral_sandboxd.ledger import Recorder

PROGRAM = textwrap.dedent("""
    import asyncio, sys
    from pathlib import Path
    from ephemeral import wire
    from ephemeral_sandboxd.ledger import Recorder

    async def main():
        recorder = Recorder(Path(sys.argv[1]), capture=False)
        recorder.mark_lost()
        for name, state, ran in (("used", "ready", True), ("running", "running", True), ("fresh", "ready", False)):
            recorder.session(wire.Session(id=name, started_at=1000, last_at=2000, sandbox=f"box-{name}"))
            recorder.sandbox(wire.Sandbox(id=f"box-{name}", session=name, state=state, created_at=1000, frozen=True))
        recorder.sandbox(wire.Sandbox(id="spare", state="spare", created_at=1000))
        recorder.session(wire.Session(id="bare", started_at=1000, last_at=2000))
        recorder.session(wire.Session(id="over", started_at=1000, last_at=2000, ended_at=2001, state="ended", sandbox="box-over"))
        recorder.sandbox(wire.Sandbox(id="box-over", session="over", state="deleted", created_at=1000))
        done = wire.Execution(id="e1", session="used", sandbox="box-used", state="done", verdict="ok", created_at=1100, started_at=1101)
        recorder.execution(done)
        recorder.execution(wire.Execution(id="e0", session="over", sandbox="box-over", state="done", verdict="ok", created_at=1, started_at=1))
        recorder.execution(wire.Execution(id="e2", session="running", sandbox="box-running", state="running", created_at=1100))
        recorder.execution(wire.Execution(id="e3", session="fresh", state="preparing", created_at=1100))
        assert await recorder.flush()
        print("written", flush=True)
        await asyncio.sleep(600)

    asyncio.run(main())
""")


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """The ledger of a daemon that was killed in the middle of its work."""
    path = tmp_path / "ledger.db"
    child = subprocess.Popen([sys.executable, "-c", PROGRAM, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "written\n"
    os.kill(child.pid, signal.SIGKILL)
    child.stdout.close()
    child.wait()
    return path


async def test_the_next_daemon_learns_whose_sandbox_is_gone(killed: Path):
    recorder = Recorder(killed, capture=False)
    assert recorder.unfinished() == [("used", "box-used", True), ("running", "box-running", True), ("fresh", "box-fresh", False)]
    assert recorder.mark_lost() == ["used", "running"]
    assert recorder.mark_lost() == ["used", "running"], "killed again at once, they still have to be told"
    recorder.session(wire.Session(id="used", started_at=3000, last_at=3000, sandbox="box-new"))
    await recorder.flush()
    assert recorder.mark_lost() == ["running"], "that one went on without anything having run"
    await recorder.close()


async def test_nothing_is_left_that_would_seem_to_be_going_on(killed: Path):
    recorder = Recorder(killed, capture=False)
    recorder.mark_lost()
    database = Database(killed)
    assert {row["id"]: (row["state"], row["frozen"]) for row in database.table("sandboxes").rows} == {
        "box-used": ("lost", 0), "box-running": ("lost", 0), "box-fresh": ("lost", 0), "spare": ("lost", 0), "box-over": ("deleted", 0),
    }  # fmt: skip
    executions = {execution.id: execution for execution in (await recorder.executions()).items}
    assert {identity: (e.state, e.verdict) for identity, e in executions.items()} == {
        "e0": ("done", "ok"), "e1": ("done", "ok"), "e2": ("done", "crashed"), "e3": ("done", "crashed"),
    }  # fmt: skip
    assert "run it again" in (executions["e2"].error or "")
    sessions = {session.id: session for session in (await recorder.sessions()).items}
    assert {session.state for session in sessions.values()} == {"ended"}
    assert (sessions["used"].ended_at, sessions["over"].ended_at) == (2000, 2001)
    await recorder.close()
    database.close()


async def test_a_ledger_that_cannot_be_written_says_so(killed: Path):
    recorder = Recorder(killed, capture=False)
    with closing(sqlite3.connect(killed, isolation_level=None)) as stubborn:
        stubborn.execute("begin immediate")
        with pytest.raises(Unavailable, match="locked"):
            recorder.mark_lost()
        stubborn.execute("rollback")
    assert recorder.mark_lost() == ["used", "running"]
    await recorder.close()
