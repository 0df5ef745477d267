"""What an app's sessions imported: counted from sandboxd's real API and ledger, kept in a file, forgotten when that is asked."""

from __future__ import annotations

import importlib.util
import json
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ephemeral import wire
from ephemeral_predictor import history as module
from ephemeral_predictor.following import Follower
from ephemeral_predictor.history import History, Observed, Run
from ephemeral_predictor.sandboxd import Sandboxd
from ephemeral_sandboxd.api import build, serve
from ephemeral_sandboxd.ledger import Recorder

_SPEC = importlib.util.spec_from_file_location("stand_in_of_sandboxd", Path(__file__).parents[1] / "api" / "stand_in.py")
assert _SPEC is not None
assert _SPEC.loader is not None
stand_in = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(stand_in)

DAY = 86_400.0
START = 1_760_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "history.db"


@pytest.fixture
def history(path: Path, clock: Clock) -> Iterator[History]:
    opened = History(path, clock)
    yield opened
    opened.close()


_NUMBERS = iter(range(10**9))


def seen(app: str = "notebook", packages: Sequence[str] | None = ("pandas",), at: float = START, peak: int | None = 100, **fields: Any) -> Observed:
    """A session that imported ``packages`` in one run; None: it had no code."""
    runs = () if packages is None else (Run(frozenset(packages), peak),)
    values: dict[str, Any] = {"session": f"s{next(_NUMBERS)}", "app": app, "started_at": at - 60, "ended_at": at, "runs": runs} | fields
    return Observed(**values)


def feed(history: History, count: int, **fields: Any) -> None:
    for _ in range(count):
        assert history.record(seen(**fields))


# ----------------------------------------------------------------------------------------------------------- what it says


def test_nothing_is_said_below_five_sessions(history: History) -> None:
    feed(history, 4)
    assert (history.prior("notebook"), history.needs_code("notebook")) == ({}, None)
    feed(history, 1)
    assert 0.6 < history.prior("notebook")["pandas"] < 0.8
    assert history.prior("another") == {}


def test_a_probability_comes_near_the_share_of_sessions(history: History) -> None:
    for number in range(200):
        history.record(seen(packages=["pandas", "scipy"] if number % 4 == 0 else ["pandas"]))
    prior = history.prior("notebook")
    assert prior["pandas"] > 0.95
    assert abs(prior["scipy"] - 0.25) < 0.03


def test_the_need_of_code_is_counted_over_all_sessions_and_packages_over_those_with_code(history: History) -> None:
    feed(history, 10)
    feed(history, 30, packages=None)
    needs = history.needs_code("notebook")
    assert needs is not None
    assert abs(needs - 0.25) < 0.03
    assert history.prior("notebook")["pandas"] > 0.8


def test_apps_are_told_apart(history: History) -> None:
    feed(history, 5, app="charts", packages=["matplotlib"])
    feed(history, 5, app="", packages=["torch"])
    assert set(history.prior("charts")) == {"matplotlib"}
    assert set(history.prior("")) == {"torch"}


def test_an_app_that_changes_is_followed_and_one_that_is_silent_fades(history: History, clock: Clock) -> None:
    feed(history, 20, packages=["pandas"])
    clock.now += 60 * DAY
    feed(history, 20, packages=["polars"], at=clock.now)
    prior = history.prior("notebook")
    assert prior["polars"] > 3 * prior["pandas"]
    clock.now += 150 * DAY
    assert history.prior("notebook") == {}
    assert history.needs_code("notebook") is None


def test_memory_is_what_such_runs_took_at_the_95th_percentile(history: History) -> None:
    for megabytes in range(1, 21):
        history.record(seen(packages=["pandas"], peak=megabytes << 20))
    feed(history, 5, packages=["pandas", "torch"], peak=900 << 20)
    assert history.memory_bytes(["Torch"]) == 900 << 20
    assert history.memory_bytes(["pandas"]) == 900 << 20
    assert history.memory_bytes(["polars"]) is None


def test_memory_is_not_known_where_code_died_of_too_little(history: History) -> None:
    feed(history, 5)
    assert history.memory_bytes(["pandas"]) == 100
    feed(history, 1, runs=(Run(frozenset(["pandas"]), None, out_of_memory=True),))
    assert history.memory_bytes(["pandas"]) is None


def test_a_run_whose_memory_nobody_measured_says_nothing_of_memory(history: History) -> None:
    feed(history, 9, peak=None)
    assert history.memory_bytes(["pandas"]) is None
    assert "pandas" in history.prior("notebook")


def test_a_package_that_came_up_once_is_thought_rarer_than_its_share(history: History) -> None:
    feed(history, 4, packages=["pandas"])
    feed(history, 1, packages=["pandas", "scipy"])
    assert 0 < history.prior("notebook")["scipy"] < 0.1


# --------------------------------------------------------------------------------------------------------- what is counted


def test_a_session_counts_once_and_again_only_for_code_that_came_later(history: History) -> None:
    session = seen(packages=None, session="one")
    for _ in range(3):
        history.record(session)
    assert history.apps() == {"notebook": 1}
    assert history.settled("one", START)
    assert not history.settled("one", START + 9)
    later = seen(session="one", at=START + 9)
    history.record(later)
    history.record(seen(session="one", at=START + 99, packages=["torch"]))
    assert history.settled("one", START + 1000)
    feed(history, 4)
    assert history.apps() == {"notebook": 5}
    assert set(history.prior("notebook")) == {"pandas"}


def test_everything_is_bounded(history: History, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, bound in (("APPS", 3), ("PACKAGES", 4), ("RUNS", 20), ("RUNS_OF_A_SET", 5), ("COUNTED", 10)):
        monkeypatch.setattr(module, name, bound)
    for number in range(40):
        history.record(seen(app=f"app{number % 6}", packages=[f"p{number % 7}-{index}" for index in range(6)], at=START + number))
    with sqlite3.connect(path) as connection:
        counts = {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("apps", "packages", "runs", "counted")}
    connection.close()
    assert counts["apps"] == 3
    assert counts["packages"] <= 12
    assert counts["runs"] <= 20
    assert counts["counted"] == 10


def test_what_is_very_old_is_dropped(history: History, clock: Clock) -> None:
    feed(history, 5, app="old")
    clock.now += 200 * DAY
    feed(history, 1, app="young", at=clock.now)
    assert list(history.apps()) == ["young"]
    assert history.memory_bytes(["pandas"]) is None


def test_what_is_no_package_name_is_left_out(history: History) -> None:
    feed(history, 5, packages=["pandas", "SECRET words", "x" * 500, ""])
    assert set(history.prior("notebook")) == {"pandas"}


# ---------------------------------------------------------------------------------------------------------------- the file


def test_the_file_is_private_holds_no_session_and_survives_a_restart(history: History, path: Path, clock: Clock) -> None:
    history.record(seen(session="c-very-private-session"))
    feed(history, 4)
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert b"c-very-private-session" not in file.read_bytes()
    before = history.prior("notebook")
    history.close()
    again = History(path, clock)
    assert again.prior("notebook") == before
    assert again.settled("c-very-private-session", START)
    again.close()


def test_forgetting_leaves_no_trace_of_the_app_and_its_sessions_so_far_are_not_learned_again(history: History, path: Path, clock: Clock) -> None:
    feed(history, 6, app="hush-hush", packages=["torch", "hidden-library"])
    feed(history, 6)
    assert history.forget("hush-hush") == 6
    assert (history.prior("hush-hush"), history.memory_bytes(["torch"])) == ({}, None)
    assert "pandas" in history.prior("notebook")
    feed(history, 6, app="hush-hush", packages=["torch"])  # sessions that began before
    assert "hush-hush" not in history.apps()
    feed(history, 1, app="hush-hush", packages=["torch"], started_at=clock.now + 1, at=clock.now + 2)
    assert history.apps()["hush-hush"] == 1
    history.forget_all()
    assert history.apps() == {}
    history.close()
    for file in path.parent.iterdir():
        assert b"hush-hush" not in file.read_bytes()
        assert b"hidden-library" not in file.read_bytes()


def test_what_another_process_forgets_is_forgotten_here_at_once(history: History, path: Path, clock: Clock) -> None:
    feed(history, 5)
    assert history.prior("notebook")
    other = History(path, clock)
    other.forget("notebook")
    other.close()
    assert history.prior("notebook") == {}


def test_a_file_that_is_damaged_or_gone_is_begun_anew(history: History, path: Path, clock: Clock) -> None:
    history.close()
    path.write_bytes(b"no database, but long enough to be taken for one " * 100)
    damaged = History(path, clock)
    assert damaged.failures == 1
    feed(damaged, 5)
    assert damaged.prior("notebook")
    assert path.with_name("history.db.damaged").exists()
    for file in path.parent.iterdir():
        file.unlink()
    assert damaged.prior("notebook") == {}
    feed(damaged, 5)
    assert damaged.prior("notebook")
    damaged.close()


def test_a_file_that_cannot_be_used_costs_nothing_but_what_it_would_say(tmp_path: Path) -> None:
    (tmp_path / "history.db").mkdir()
    history = History(tmp_path / "history.db")
    assert not history.record(seen())
    assert (history.prior("notebook"), history.needs_code("notebook"), history.memory_bytes([])) == ({}, None, None)
    assert history.settled("anything", START)
    assert history.failures > 0
    history.close()


def test_while_another_process_writes_the_counts_so_far_still_answer(history: History, path: Path) -> None:
    feed(history, 5)
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        assert not history.record(seen())
        assert history.prior("notebook")
        other.execute("ROLLBACK")
    other.close()
    assert history.record(seen())


# ------------------------------------------------------------------------------------------------------------ from sandboxd


@dataclass
class House:
    """sandboxd's API over its ledger, and who follows it."""

    recorder: Recorder
    follower: Follower
    history: History
    client: Sandboxd

    async def ended(self, identity: str, *executions: dict[str, Any], app: str = "notebook", **fields: Any) -> None:
        """A session that ended, as sandboxd records it."""
        at = START + next(_NUMBERS) / 1000
        values = {"id": identity, "app": app, "state": "ended", "started_at": at - 60, "last_at": at, "ended_at": at} | fields
        self.recorder.session(wire.Session.model_validate(values))
        for number, execution in enumerate(executions):
            values = {"id": f"{identity}-{number}", "session": identity, "state": "done", "verdict": "ok", "created_at": at - 50 + number} | execution
            self.recorder.execution(wire.Execution.model_validate(values))
        await self.recorder.flush()


@pytest.fixture
async def house(folder: Path, clock: Clock) -> AsyncIterator[House]:
    recorder = Recorder(folder / "ledger.db", capture=False)
    served = await serve(build(stand_in.StandIn(recorder), recorder, token="token", dashboard=None), folder / "sandboxd.sock", 0)
    client = Sandboxd(f"unix:{folder / 'sandboxd.sock'}")
    await client.open()
    clock.now = START + DAY
    history = History(folder / "history.db", clock)
    yield House(recorder, Follower(client, history), history, client)
    history.close()
    await client.close()
    await served.close()
    await recorder.close()


async def test_sessions_that_ended_are_learned_once_each(house: House) -> None:
    for number in range(6):
        await house.ended(f"a{number}", {"needed": ["pandas"], "peak_memory_bytes": 100}, {"needed": ["SciPy"], "peak_memory_bytes": 300})
    await house.ended("chat")
    assert await house.follower.poll() == 7
    assert await house.follower.poll() == 0
    assert house.history.apps() == {"notebook": 7}
    assert set(house.history.prior("notebook")) == {"pandas", "scipy"}
    assert house.history.memory_bytes(["scipy", "pandas"]) == 300
    assert house.follower.learned == 7


async def test_what_did_not_run_what_is_still_open_and_what_was_measured_is_not_learned(house: House) -> None:
    await house.ended("refused", {"needed": ["left-pad"], "verdict": "refused"})
    await house.ended("bench", {"needed": ["torch"]}, policy="fat-snapshot")
    await house.ended("open", {"needed": ["torch"]}, state="active", ended_at=None)
    assert await house.follower.poll() == 1
    assert house.history.apps() == {"notebook": 1}
    await house.ended("open", {"needed": ["torch"]})
    assert await house.follower.poll() == 1


async def test_a_session_without_an_app_has_that_of_its_conversation_or_of_its_plans(house: House) -> None:
    house.follower.met("chat", "assistant")
    await house.ended("chat", app="")
    plan = wire.Plan(session="planned", proposer="seen", app="charts", at=START)
    house.recorder.plan(wire.PlanRecord(id=1, session="planned", plan=plan))
    await house.ended("planned", {"needed": ["matplotlib"]}, app="")
    await house.follower.poll()
    assert set(house.history.apps()) == {"assistant", "charts"}


async def test_many_sessions_and_pages_of_executions_are_read_to_the_end(house: House) -> None:
    for number in range(120):
        await house.ended(f"many{number}")
    await house.ended("long", *({"needed": [f"package{number}"]} for number in range(12)))
    assert await house.follower.poll() == 121
    await house.ended("early", state="active", ended_at=None)
    await house.follower.poll()
    for number in range(120):
        await house.ended(f"more{number}", state="active", ended_at=None)
    await house.ended("early", {"needed": ["pandas"]})  # no longer on the first page
    assert await house.follower.poll() == 1
    feed(house.history, 5)
    assert {"package0", "package11", "pandas"} <= set(house.history.prior("notebook"))


async def test_while_sandboxd_is_down_nothing_is_learned_and_nothing_lost(folder: Path, clock: Clock) -> None:
    client = Sandboxd(f"unix:{folder / 'sandboxd.sock'}")
    await client.open()
    history = History(folder / "history.db", clock)
    follower = Follower(client, history)
    assert await follower.poll() == 0
    recorder = Recorder(folder / "ledger.db", capture=False)
    house = House(recorder, follower, history, client)
    await house.ended("meanwhile", {"needed": ["pandas"]})
    served = await serve(build(stand_in.StandIn(recorder), recorder, token="token", dashboard=None), folder / "sandboxd.sock", 0)
    assert await follower.poll() == 1
    history.close()
    await client.close()
    await served.close()
    await recorder.close()


# -------------------------------------------------------------------------------------------------------- the command line


def ephemeral(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ephemeral_cli", *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL,
        env={**os.environ, "EPHEMERAL_STATE": str(state)}, timeout=120, check=False,
    )  # fmt: skip


def test_ephemeral_forget_forgets_an_app_or_all_and_says_what_there_is(history: History, path: Path) -> None:
    feed(history, 5)
    feed(history, 3, app="--charts")
    unknown = ephemeral(path.parent, "forget", "nobody")
    assert unknown.returncode == 1
    assert "nothing has been learned from an app called 'nobody'" in unknown.stderr
    assert "'notebook'" in unknown.stderr
    assert ephemeral(path.parent, "forget", "notebook").stdout.startswith("Forgot what 5 sessions of 'notebook' had taught.")
    assert set(history.apps()) == {"--charts"}
    assert ephemeral(path.parent, "forget", "--", "--charts").returncode == 0
    assert ephemeral(path.parent, "forget", "--all").stdout.startswith("Forgot what 0 sessions of every app")
    assert ephemeral(path.parent, "forget").returncode == 2


def test_ephemeral_forget_before_anything_was_learned_makes_nothing(tmp_path: Path) -> None:
    done = ephemeral(tmp_path, "forget", "--all")
    assert done.returncode == 1
    assert "nothing has been learned so far" in done.stderr
    assert not list(tmp_path.iterdir())
    answer = subprocess.run([sys.executable, "-m", "ephemeral_predictor.forget", "--all"], capture_output=True, text=True, env={**os.environ, "EPHEMERAL_STATE": str(tmp_path)}, timeout=60, check=False)
    assert "hint" in json.loads(answer.stdout)
