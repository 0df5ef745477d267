"""`ephemeral replay` under several policies: which run, what is compared, and what is kept when it is interrupted."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ephemeral import names, wire
from ephemeral_cli.errors import CommandError
from ephemeral_cli.replay import comparing, policies, store
from ephemeral_cli.replay.comparing import Measured
from ephemeral_cli.replay.conversation import Held
from ephemeral_cli.replay.orders import Outcome
from ephemeral_cli.replay.tasks import Task

K2 = Path(__file__).parents[1] / "fakes" / "k2.py"
PATIENCE = 300


def held(task: str, wait: float, *needed: str, output: str = "42", memory: float = 1.0, builds: int = 1, wasted: int = 0) -> Held:
    execution = wire.Execution(id=f"e-{task}", session=f"s-{task}", tier="live", verdict="ok", created_at=1.0, wait_ms=wait, run_ms=2.0, needed=list(needed))
    session = wire.Session(id=f"s-{task}", started_at=0, last_at=0, executions=1, builds=builds, wasted=wasted, memory_seconds=memory)
    return Held(Task(id=task, messages=[{"role": "user", "content": task}], code="print(42)", expect="42"), Outcome(id="o", outputs=[output]), session, [execution])


def talk(memory: float = 0.5) -> Held:
    """A conversation without code, for which something was built."""
    session = wire.Session(id="s-talk", started_at=0, last_at=0, builds=1, wasted=1, memory_seconds=memory)
    return Held(Task(id="talk", messages=[{"role": "user", "content": "hello"}]), Outcome(id="o"), session)


def of(p50: float, p95: float, outside: float | None = None, memory: float = 1.0, count: int = 40) -> dict[str, Any]:
    """Figures, as much of them as comparisons look at."""
    waits = {"count": count, "p50": p50, "p95": p95, "p99": p95, "max": p95}
    return {
        "wait_ms": waits, "wait_outside_twenty_ms": None if outside is None else {**waits, "count": 7, "p95": outside}, "wait_within_base_ms": waits,
        "memory_gib_seconds": memory, "unserved": [],
    }  # fmt: skip


def goals(found: list[dict[str, Any]], policy: str = "ours") -> dict[tuple[str, str], dict[str, Any]]:
    return {(each["against"], each["figure"]): each for each in found if each["kind"] == "goal" and each["policy"] == policy}


def ties(found: list[dict[str, Any]], policy: str = "ours") -> dict[str, dict[str, Any]]:
    return {each["figure"]: each for each in found if each["kind"] == "tie" and each["policy"] == policy}


# -------------------------------------------------------------------------------------------------------- comparisons


def test_goals_are_met_by_the_ratio_of_the_figures() -> None:
    found = comparing.comparisons({"base": of(1000, 5000, 6000), "fat-snapshot": of(4, 900, 2000, memory=10), "ours": of(4, 1000, 1000, memory=5)})
    assert {key: (each["ratio"], each["met"]) for key, each in goals(found).items()} == {
        ("base", "wait_ms.p95"): (5.0, True),
        ("fat-snapshot", "wait_ms.p50"): (1.0, True),
        ("fat-snapshot", "wait_outside_twenty_ms.p95"): (2.0, True),
        ("fat-snapshot", "memory_gib_seconds"): (2.0, True),
    }
    missed = comparing.comparisons({"base": of(1000, 4900), "fat-snapshot": of(4, 900, 1900, memory=9), "ours": of(5, 1000, 1000, memory=5)})
    assert not any(each["met"] for each in goals(missed).values())


def test_a_goals_sentence_says_both_figures_how_many_they_are_of_the_ratio_and_whether_it_is_met() -> None:
    found = goals(comparing.comparisons({"base": of(900, 5000, count=39), "ours": of(4, 50)}))
    assert found["base", "wait_ms.p95"]["sentence"] == (
        "ours against base, wait p95: 50.0 against 5,000 ms (n 40 and 39), 100.0 times better. Goal 5 times better: met.")
    worse = goals(comparing.comparisons({"fat-snapshot": of(4, 50, memory=2), "ours": of(8, 50, memory=1.5)}))
    assert "2.0 times worse. Goal at least equal: NOT met" in worse["fat-snapshot", "wait_ms.p50"]["sentence"]
    assert "1.5 against 2.0 GiB s, 1.3 times better. Goal 2 times better: NOT met" in worse["fat-snapshot", "memory_gib_seconds"]["sentence"]


def test_at_least_equal_allows_what_two_runs_of_the_same_differ_by() -> None:
    for ours, met in ((4.0, True), (4.19, True), (4.3, False)):
        found = goals(comparing.comparisons({"fat-snapshot": of(4.0, 50), "ours": of(ours, 50)}))
        assert found["fat-snapshot", "wait_ms.p50"]["met"] is met


def test_what_was_not_measured_leaves_a_goal_open() -> None:
    found = goals(comparing.comparisons({"fat-snapshot": of(4, 50, outside=None), "ours": of(4, 50, outside=10)}))
    outside = found["fat-snapshot", "wait_outside_twenty_ms.p95"]
    assert (outside["met"], outside["ratio"]) == (None, None)
    assert "fat-snapshot has no such figure" in outside["sentence"]


def test_a_goal_is_not_met_by_failing_what_another_policy_ran() -> None:
    ours = {**of(4, 50), "unserved": ["hard"]}
    found = goals(comparing.comparisons({"base": of(900, 5000), "fat-snapshot": of(2, 50), "ours": ours}))
    assert found["base", "wait_ms.p95"]["met"] is None
    assert "without 1 that it failed and another policy ran. Goal 5 times better: open" in found["base", "wait_ms.p95"]["sentence"]
    assert found["fat-snapshot", "wait_ms.p50"]["met"] is False


def test_only_policies_that_were_measured_are_compared() -> None:
    assert comparing.comparisons({"base": of(1, 2), "none": of(1, 2)}) == []
    assert {each["against"] for each in comparing.comparisons({"base": of(10, 20), "ours": of(1, 2)})} == {"base"}


def test_a_cheaper_policy_that_is_as_good_is_named_at_each_wait_where_it_is() -> None:
    found = ties(comparing.comparisons({"none": of(9000, 9000), "base": of(4.1, 900), "fat-snapshot": of(2, 52), "ours": of(4, 50)}))
    assert found["wait_ms.p50"]["ties"] == {"base": 4.1, "fat-snapshot": 2}
    assert found["wait_ms.p50"]["sentence"] == "A cheaper policy beats ours at wait p50: base 4.1, fat-snapshot 2.0 against 4.0 ms."
    assert found["wait_ms.p95"]["sentence"] == "A cheaper policy ties ours at wait p95: fat-snapshot 52.0 against 50.0 ms."
    assert "memory_gib_seconds" not in found


def test_ours_without_k2_is_the_cheaper_policy_to_ours_with_it() -> None:
    found = comparing.comparisons({"ours": of(4, 50), policies.K2: of(4, 50)})
    assert ties(found, policies.K2)["wait_ms.p95"]["ties"] == {"ours": 50}
    assert not ties(found, "ours")


# ------------------------------------------------------------------------------------------------------------ figures


def test_waits_are_split_by_what_the_tasks_need() -> None:
    twenty = frozenset({"numpy", "opencv-python-headless"})
    tasks = [held("plain", 1), held("in-both", 2, "numpy"), held("twenty", 3, "opencv-python"), held("base", 4, "httpx"), held("tail", 5, "humanize", "numpy")]
    found = comparing.figures({"ours": Measured(tasks, base_packages=["numpy", "httpx"])}, twenty)["ours"]
    assert (found["wait_outside_twenty_ms"]["count"], found["wait_outside_twenty_ms"]["max"]) == (2, 5)
    assert (found["wait_within_base_ms"]["count"], found["wait_within_base_ms"]["max"]) == (3, 4)


def test_a_task_needs_under_every_policy_what_it_was_found_to_need_under_one() -> None:
    found = comparing.figures({"ours": Measured([held("a", 5, "humanize")]), "none": Measured([held("a", 900)])}, frozenset())
    assert found["none"]["wait_outside_twenty_ms"]["p95"] == 900
    assert list(found) == ["none", "ours"]


def test_the_wait_of_a_task_that_only_others_ran_well_is_not_counted() -> None:
    served, gave_up = held("a", 50), held("a", 1, output="ModuleNotFoundError")
    broken = [held("b", 7, output="41"), held("b", 8, output="41")]
    found = comparing.figures({"ours": Measured([served, broken[0]]), "none": Measured([gave_up, broken[1]])}, frozenset())
    assert (found["none"]["unserved"], found["none"]["wait_ms"]["max"], found["none"]["wait_ms"]["count"]) == (["a"], 8, 1)
    assert (found["ours"]["unserved"], found["ours"]["wait_ms"]["count"]) == ([], 2)


def test_waste_is_builds_that_nothing_used_and_memory_of_sessions_that_executed_nothing() -> None:
    stray = wire.Session(id="c-stray", started_at=0, last_at=0, builds=1, wasted=1, memory_seconds=0.25)
    found = comparing.figures({"ours": Measured([held("a", 1, builds=2), talk()], [stray])}, frozenset())["ours"]
    assert (found["builds"], found["wasted"], found["wasted_share"]) == (4, 2, 0.5)
    assert (found["memory_gib_seconds"], found["wasted_memory_gib_seconds"], found["strays"]) == (1.75, 0.75, 1)


def test_what_a_rival_builds_for_every_session_is_waste_in_talk_and_no_failure() -> None:
    by_rival = talk()
    by_rival.session = by_rival.session and by_rival.session.model_copy(update={"policy": "base"})
    found = comparing.figures({"base": Measured([by_rival]), "ours": Measured([talk()])}, frozenset())
    assert [(each["ok"], each["builds"], each["wasted"]) for each in found.values()] == [(1, 1, 1), (0, 1, 1)]


def test_the_table_has_a_column_for_each_policy_and_shows_what_k2_was_asked() -> None:
    calls = {"asked": 3, "answered": 2, "failed": 1}
    found = comparing.figures({policies.K2: Measured([held("a", 1)], k2=calls), "none": Measured([talk()])}, frozenset())
    console = Console(width=132)
    with console.capture() as shown:
        console.print(comparing.show(found))
    lines = shown.get().splitlines()
    assert lines[0].split() == ["none", "ours+k2"]
    assert next(line for line in lines if line.startswith("K2")).split()[-2:] == ["-", "3/2/1"]
    assert next(line for line in lines if line.startswith("wait p95")).split()[-2:] == ["-", "1.0"]


# ----------------------------------------------------------------------------------------------------------- policies


def test_all_leaves_k2_out_where_none_is_named_and_says_what_to_set() -> None:
    chosen, left_out = policies.choose(["all"], has_k2=False)
    assert chosen == ["ours", "fat-snapshot", "base", "none"]
    assert "EPHEMERAL_K2_API_KEY" in left_out[policies.K2]
    assert "--k2-url" in left_out[policies.K2]
    assert set(policies.choose(["all"], has_k2=True)[0]) == set(policies.POLICIES)
    assert policies.choose([], has_k2=True)[0] == ["ours"]
    assert policies.choose(["none", "base", "none"], has_k2=False) == (["base", "none"], {})
    with pytest.raises(CommandError, match="no K2 is named"):
        policies.choose(["all", policies.K2], has_k2=False)


def test_only_the_policy_that_is_named_after_it_ever_asks_k2(monkeypatch: pytest.MonkeyPatch) -> None:
    assert policies.k2_variables("") == {}
    monkeypatch.setenv("EPHEMERAL_K2_API_KEY", "sk-mine")
    assert policies.k2_variables("") == {"EPHEMERAL_K2_API_KEY": "sk-mine"}
    named = policies.k2_variables("http://127.0.0.1:1/v1")
    assert named == {"EPHEMERAL_K2_BASE_URL": "http://127.0.0.1:1/v1", "EPHEMERAL_K2_API_KEY": "sk-mine"}
    assert policies.variables(policies.K2, named) == {"EPHEMERAL_PREDICTOR": "ours", **named}
    for policy, predictor in (("ours", "ours"), ("none", "none"), ("base", "none"), ("fat-snapshot", "none")):
        assert policies.variables(policy, named) == {"EPHEMERAL_PREDICTOR": predictor, "EPHEMERAL_K2_API_KEY": ""}
    with pytest.raises(CommandError, match="is no address"):
        policies.k2_variables("localhost")


def test_the_twenty_are_packages_by_their_usual_names() -> None:
    twenty = policies.twenty()
    assert len(twenty) == 20
    assert {"scikit-learn", "pillow", "beautifulsoup4", "torch"} <= twenty
    assert all(names.equivalent(package) == package for package in twenty)


def test_a_policys_store_has_what_setup_made_and_nothing_that_was_downloaded_since(tmp_path: Path) -> None:
    ours = tmp_path / "store"
    for wheel in ("aa", "tail"):
        (ours / "wheels" / wheel / "site").mkdir(parents=True)
    for folder in ("snapshots", "resolutions", "uv"):
        (ours / folder).mkdir()
    (ours / "base.json").write_text(json.dumps({"lock": {"wheels": [{"sha256": "aa"}]}}))
    with store.fresh(ours, tmp_path) as fresh:
        assert sorted(entry.name for entry in fresh.iterdir()) == ["base.json", "snapshots", "wheels"]
        assert [entry.name for entry in (fresh / "wheels").iterdir()] == ["aa"]
        assert (fresh / "wheels" / "aa" / "site").is_dir()
        (fresh / "wheels" / "new").mkdir()
    assert not fresh.exists()
    assert sorted(entry.name for entry in (ours / "wheels").iterdir()) == ["aa", "tail"]
    (ours / "base.json").write_text("{broken")
    with pytest.raises(CommandError, match="cannot be read"), store.fresh(ours, tmp_path):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]


# ------------------------------------------------------------------------------------------------------- real houses


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """Two tasks, one of which wants a package of the test store's base environment."""
    file = tmp_path / "tasks.jsonl"
    file.write_text("".join(json.dumps(task) + "\n" for task in (
        {"id": "frame", "messages": [{"role": "user", "content": "Add 40 and 2 with pandas. Run the code."}], "prose": "I use pandas.\n",
         "code": "import pandas\nprint(pandas.Series([40, 2]).sum())", "packages": ["pandas"], "expect": "42"},
        {"id": "plain", "messages": [{"role": "user", "content": "Add 40 and 2 in Python. Run the code."}],
         "code": "print(40 + 2)", "packages": [], "expect": "42"},
    )))  # fmt: skip
    return file


def replay(tasks: Path, store: Path, state: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ephemeral_cli", "replay", str(tasks), "--limit", "2", "--tokens-per-second", "2000", "--ttft", "0.1", *options]
    environment = {**os.environ, "EPHEMERAL_STORE": str(store), "EPHEMERAL_STATE": str(state)}
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def k2() -> Iterator[str]:
    """A K2 of ours, which wants the key that a server without keys is sent."""
    server = subprocess.Popen([sys.executable, K2, "--port", "0", "--key", policies.NO_KEY, "--tokens-per-second", "2000"], stdout=subprocess.PIPE, text=True)
    assert server.stdout
    yield server.stdout.readline().strip()
    server.terminate()
    server.wait(10)
    server.stdout.close()


def test_several_policies_run_over_the_same_tasks_and_are_told_side_by_side(tasks: Path, store: Path, state: Path, k2: str) -> None:
    before = sorted(entry.name for entry in (store / "wheels").iterdir())
    done = replay(tasks, store, state, "--policy", "base", "--policy", "ours+k2", "--k2-url", k2, "--json")
    output, errors = done.communicate(timeout=PATIENCE)
    assert done.returncode == 0, errors
    told = json.loads(output)
    assert (list(told["policies"]), told["order"]) == (["base", "ours+k2"], ["ours+k2", "base"])
    for policy, found in told["policies"].items():
        assert (found["conversations"], found["ok"], found["wait_ms"]["count"]) == (2, 2, 2), (policy, found)
        assert [task["id"] for task in found["tasks"]] == [task["id"] for task in told["policies"]["base"]["tasks"]]
        assert found["wait_within_base_ms"]["count"] == 2
        assert found["wait_outside_twenty_ms"] is None
        assert (found["k2"] is not None) is (policy == "ours+k2")
    assert (told["policies"]["base"]["builds"], told["policies"]["base"]["wasted"]) == (2, 0)  # stood up as the sessions began
    asked = told["policies"]["ours+k2"]["k2"]
    assert asked["asked"] == 2 == asked["answered"] + asked["failed"] + asked["unanswered"]
    assert [(each["policy"], each["against"]) for each in told["comparisons"] if each["kind"] == "goal"] == [("ours+k2", "base")]
    assert (told["failed"], told["left_out"], told["interrupted"], told["machine"]["cores"]) == ({}, {}, False, os.cpu_count())
    for policy in told["order"]:
        assert f"{policy}: 2 conversations" in errors
    assert sorted(entry.name for entry in (store / "wheels").iterdir()) == before


def test_an_interrupted_comparison_tells_what_it_has_measured(tasks: Path, store: Path, state: Path) -> None:
    running = replay(tasks, store, state, "--policy", "ours", "--policy", "none")
    assert running.stderr
    said: list[str] = []
    for line in running.stderr:
        said.append(line)
        if line.startswith("none: 2 conversations"):
            break
    running.send_signal(signal.SIGINT)
    output, errors = running.communicate(timeout=PATIENCE)
    assert running.returncode == 130, "".join(said) + errors
    assert "interrupted" in errors
    assert re.search(r"^ +ours *$", output, re.MULTILINE), output
    assert re.search(r"^ok +2 *$", output, re.MULTILINE), output


@pytest.mark.parametrize(("options", "words"), [
    (("--policy", "ours+k2"), "EPHEMERAL_K2_API_KEY"),
    (("--policy", "all", "--warm"), "leave --warm out"),
    (("--policy", "base", "--k2-url", "http://127.0.0.1:1/v1"), "add --policy ours+k2"),
    (("--policy", "all", "--k2-url", "somewhere"), "is no address"),
])
def test_what_cannot_be_compared_is_refused_with_what_to_type(tasks: Path, state: Path, options: tuple[str, ...], words: str) -> None:
    done = replay(tasks, state / "no-store", state, *options)
    _, errors = done.communicate(timeout=PATIENCE)
    assert done.returncode == 2
    assert words in errors
