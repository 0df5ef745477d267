"""`ephemeral prune`, against a sandboxd that runs and on the database of one that does not."""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ephemeral import wire
from ephemeral_cli import prune
from ephemeral_cli.errors import CommandError
from ephemeral_sandboxd.ledger import Recorder

DAY = 86_400.0
STAND_IN = Path(__file__).parent.parent / "api" / "stand_in.py"


def ephemeral(state: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ephemeral_cli", *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL,
        env={**os.environ, "EPHEMERAL_STATE": str(state), **variables}, timeout=120, check=False,
    )  # fmt: skip


def fill(path: Path) -> None:
    """A session that ended 40 days ago, with two moments, and one that ended 3 days ago."""

    async def record() -> None:
        recorder = Recorder(path, capture=False)
        for name, days in (("old", 40), ("young", 3)):
            at = time.time() - days * DAY
            recorder.session(wire.Session(id=name, started_at=at, last_at=at, ended_at=at, state="ended"))
            for kind in ("boot", "ready"):
                recorder.moment(wire.Moment(session=name, at=at, kind=kind))
        await recorder.close()

    asyncio.run(record())


@pytest.fixture
def running(state: Path) -> Iterator[Path]:
    """The state directory of a sandboxd (its real API and ledger, over a stand-in of the pool) that serves."""
    fill(state / "ledger.db")
    child = subprocess.Popen([sys.executable, str(STAND_IN), str(state), "token"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline().strip().isdigit()
    yield state
    child.communicate(timeout=60)


def test_a_running_sandboxd_is_asked_to_prune(running: Path) -> None:
    foretold = ephemeral(running, "prune", "--dry-run")
    assert (foretold.returncode, foretold.stderr) == (0, "")
    assert foretold.stdout.startswith("Would forget 1 sessions with 2 moments: about ")
    done = ephemeral(running, "prune")
    assert done.stdout.startswith("Forgot 1 sessions with 2 moments. The database has ")
    assert ephemeral(running, "prune", "--older-than", "2d", "--vacuum").stdout.startswith("Forgot 1 sessions")


def test_without_a_sandboxd_the_database_is_pruned_directly(state: Path) -> None:
    fill(state / "ephemeral.db")
    foretold = ephemeral(state, "prune", "--dry-run", "--older-than", "12h")
    assert (foretold.returncode, foretold.stderr) == (0, "")
    assert foretold.stdout.startswith("Would forget 2 sessions with 4 moments")
    done = ephemeral(state, "prune", EPHEMERAL_RETENTION_DAYS="10")
    assert done.stdout.startswith("Forgot 1 sessions with 2 moments"), done.stderr


def test_a_database_that_a_daemon_has_locked_is_left_alone(state: Path) -> None:
    """One that holds the lock and does not answer yet: it is starting, or stopping."""
    fill(state / "ephemeral.db")
    with (state / "sandboxd.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711")
        lock.flush()
        done = ephemeral(state, "prune", "--older-than", "0d")
    assert done.returncode == 1
    assert "already running" in done.stderr
    assert "4711" in done.stderr
    assert ephemeral(state, "prune", "--dry-run", "--older-than", "0d").stdout.startswith("Would forget 2 sessions")


def test_where_there_is_nothing_it_says_so_and_makes_nothing(state: Path) -> None:
    done = ephemeral(state, "prune")
    assert done.returncode == 1
    assert "there is no ledger" in done.stderr
    assert "EPHEMERAL_STATE" in done.stderr
    assert not list(state.iterdir())


def test_a_remote_sandboxd_that_does_not_answer_is_not_mistaken_for_this_machine(state: Path) -> None:
    fill(state / "ephemeral.db")
    done = ephemeral(state, "prune", EPHEMERAL_HOST=f"unix:{state}/elsewhere.sock")
    assert done.returncode == 1
    assert "Nothing answers" in done.stderr


@pytest.mark.parametrize(("text", "days"), [("7d", 7.0), ("7", 7.0), ("12h", 0.5), ("2w", 14.0), ("0d", 0.0), ("1.5d", 1.5)])
def test_ages_are_written_in_hours_days_and_weeks(text: str, days: float) -> None:
    assert prune.days(text) == days


@pytest.mark.parametrize("text", ["", "d", "-1d", "7 days", "1e9", "nan", "99999w", "٧d"])
def test_what_is_no_age_is_refused(text: str) -> None:
    with pytest.raises(CommandError, match="is no age"):
        prune.days(text)
