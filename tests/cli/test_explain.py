"""`ephemeral explain`, against sandboxd's real API and ledger, and a predictor that runs."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console

from ephemeral import wire
from ephemeral_cli.explain import showing, story
from ephemeral_cli.explain.fetching import Material
from ephemeral_sandboxd.ledger import Recorder

STAND_IN = Path(__file__).parent.parent / "api" / "stand_in.py"
AGREED = Path(__file__).parents[2] / "dashboard" / "src" / "decisions" / "agreed.json"
T = 1_700_000_000.0
PATIENCE_SECONDS = 60.0


def ephemeral(state: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ephemeral_cli", *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL,
        env={**os.environ, "EPHEMERAL_STATE": str(state), "COLUMNS": "200", **variables}, timeout=120, check=False,
    )  # fmt: skip


def want(package: str, probability: float, evidence: str = "concept", proposer: wire.Proposer = "learned") -> wire.Want:
    return wire.Want(package=package, probability=probability, proposer=proposer, evidence=evidence)


def plan(number: int, *wants: wire.Want, session: str = "c-first", after: float = 0.1, **fields: Any) -> wire.PlanRecord:
    """A plan that became ready 0.5 s later."""
    asked = wire.Plan(session=session, proposer=wants[0].proposer if wants else "seen", wants=list(wants), needs_code=0.85, at=T + after, modules=["pandas"])
    values = {"accepted": sorted(w.package for w in wants), "outcome": "ready", "ready_at": T + after + 0.5} | fields
    return wire.PlanRecord(id=number, session=session, plan=asked, **values)


def execution(session: str = "c-first", after: float = 3.0, **fields: Any) -> wire.Execution:
    values: dict[str, Any] = {
        "id": "e1", "session": session, "created_at": T + after, "started_at": T + after, "ended_at": T + after + 0.1, "state": "done", "verdict": "ok",
        "tier": "live", "wait_ms": 1.5, "run_ms": 98.0, "lead_ms": 2900.0, "predicted": ["matplotlib", "pandas"], "needed": ["pandas", "scipy"],
        "peak_memory_bytes": 200 << 20,
    }  # fmt: skip
    return wire.Execution.model_validate(values | fields)


def material(**fields: Any) -> Material:
    session = wire.Session(id="c-first", app="notebook", state="ended", started_at=T, last_at=T + 9, ended_at=T + 9, executions=1, builds=1, memory_seconds=0.5)
    values: dict[str, Any] = {"session": session, "plans": [], "moments": [], "executions": [], "belief": None}
    return Material(**values | fields)


def moment(kind: str, after: float, ms: float | None = None, detail: str = "", **data: object) -> wire.Moment:
    return wire.Moment(session="c-first", at=T + after, kind=kind, duration_ms=ms, detail=detail, data=data)


MOMENTS = [
    moment("user_turn", 0.05, chars=40, detail="SECRET words of the user"),
    moment("k2_prompt", 0.07, detail="SECRET words of the user, for K2", part=1, parts=1, model="k2"),
    moment("k2_answer", 0.9, 700.0, "SECRET reasoning", action="provision", packages=["polars"]), moment("of a newer sandboxd", 0.95, detail="SECRET too"),
    moment("plan", 0.1, plan=1), moment("restore", 0.3, 150.0, "s1: numpy"),
    moment("preload", 0.4, 80.0, "pandas"), moment("preload", 0.5, 5.0, "pandas.core"), moment("preload", 0.6, 10.0, "numpy._core"),
    moment("plan", 1.0, plan=2), moment("mount", 1.1, 2.0, "matplotlib"), moment("code_arrived", 3.0, execution="e1"),
    moment("repair", 3.05, 20.0, "scipy"), moment("execution", 3.1, 98.0, "ok"), moment("ended", 9.0, None, "closed"),
]  # fmt: skip
PLANS = [
    plan(1, want("pandas", 0.7), want("left-pad", 0.5), accepted=["pandas"], refused={"left-pad": "not a popular package"}),
    plan(2, want("pandas", 1.0, "import", "seen"), want("matplotlib", 0.6).model_copy(update={"decision": "import", "saves_ms": 412.0, "costs_ms": 37.5}), after=1.0),
]


def shown(told: story.Entry) -> str:
    """The page that a person reads."""
    page = io.StringIO()
    showing.show(told, Console(file=page, width=200))
    return page.getvalue()


def fill(path: Path) -> None:
    """`c-first`, with plans and an execution; the younger `c-second`, for which something was built in vain; and one whose app means no good."""

    async def record() -> None:
        recorder = Recorder(path, capture=True)
        recorder.session(wire.Session(id="x-hostile", app="\x1b]0;owned\x07", state="ended", started_at=T - 9, last_at=T - 9, ended_at=T - 8))
        recorder.session(material().session)
        recorder.session(wire.Session(id="c-second", state="ended", started_at=T + 20, last_at=T + 21, ended_at=T + 21, builds=1, wasted=1))
        for made in PLANS:
            recorder.plan(made)
        for mark in MOMENTS:
            recorder.moment(mark)
        recorder.execution(execution())
        await recorder.close()

    asyncio.run(record())


def plain() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("EPHEMERAL_")}


@pytest.fixture(scope="module")
def running(short_directory: Path) -> Iterator[Path]:
    """The state directory of a sandboxd (its real API and ledger, over a stand-in of the pool) that serves."""
    state = Path(tempfile.mkdtemp(dir=short_directory))
    fill(state / "ledger.db")
    child = subprocess.Popen(
        [sys.executable, str(STAND_IN), str(state), "token"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=plain()
    )
    assert child.stdout is not None
    assert child.stdout.readline().strip().isdigit()
    yield state
    child.communicate(timeout=60)


@pytest.fixture
def predictor(running: Path) -> Iterator[Path]:
    """The socket of a predictor that has seen code in `c-first`."""
    socket = running / "predictor.sock"
    child = subprocess.Popen([sys.executable, "-m", "ephemeral_predictor"], env={**os.environ, "EPHEMERAL_STATE": str(running)}, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not socket.exists():
            assert child.poll() is None, "the predictor ended"
            assert time.monotonic() < deadline, "the predictor did not start"
            time.sleep(0.05)
        event = wire.Event(session="c-first", at=T, kind="code", call="1", text="import polars\n")
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://predictor") as http:
            assert http.post("/v1/events", content=event.model_dump_json()).status_code == 204
        yield socket
    finally:
        child.terminate()
        child.wait(timeout=60)


def test_a_person_reads_the_evidence_the_plans_their_cost_and_the_outcome(running: Path) -> None:
    done = ephemeral(running, "explain", "c-first")
    assert (done.returncode, done.stderr) == (0, "")
    for words in (
        "Session c-first of notebook: ended", "no predictor runs here: what follows is what the ledger has kept",
        "plan 1 provision: pandas 0.70, left-pad 0.50", "built: restore 150 ms, preload ×3 95.0 ms", "refused left-pad: not a popular package",
        "execution e1: partial, tier live, waited 1.5 ms, ran 98.0 ms, lead 2,900 ms, ok", "preload ×3: pandas, numpy", "at most 200 MiB",
        "asked: model k2", "answered: action provision, packages polars", "used (live, waited 1.5 ms, loaded already)", "saves ms", "costs ms", "importing ahead is to save 412 ms and to cost 37.5 ms", "missed (live", "unused", "partial: the plans held some of what the code imported", "0.5 GiB-seconds",
    ):  # fmt: skip
        assert words in done.stdout
    assert "SECRET" not in done.stdout


def test_programs_get_the_same_as_json(running: Path) -> None:
    done = ephemeral(running, "explain", "c-first", "--json")
    told = json.loads(done.stdout)
    assert told["session"]["id"] == "c-first"
    assert told["outcome"]["verdict"] == "partial"
    assert told["plans"][0]["built"]["preload"] == {"n": 3, "ms": 95.0, "failed": 0}
    assert told["executions"][0]["stages"] == {}
    assert [entry["after_ms"] for entry in told["timeline"]] == sorted(entry["after_ms"] for entry in told["timeline"])
    assert (told["plans"][1]["saves_ms"], told["packages"][2]["evidence"][0]["costs_ms"]) == (412.0, 37.5)
    assert told["belief"] is None
    assert "SECRET" not in done.stdout


def test_a_beginning_that_is_unique_and_last_name_a_session_too(running: Path) -> None:
    assert json.loads(ephemeral(running, "explain", "c-f", "--json").stdout)["session"]["id"] == "c-first"
    last = json.loads(ephemeral(running, "explain", "--last", "--json").stdout)
    assert (last["session"]["id"], last["outcome"]["verdict"], last["outcome"]["wasted"]) == ("c-second", "wasted", 1)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["nobody"], 1, "no session is called nobody, and none begins so\n  next: ephemeral explain with one of the latest: c-second, c-first"),
        (["c-"], 2, "2 sessions begin with c-: c-second, c-first"),
        (["../host"], 2, "'../host' is no session id"),
        ([], 2, "one session is explained at a time"),
    ],
)
def test_what_names_no_single_session_is_told_which_there_are(running: Path, arguments: list[str], status: int, words: str) -> None:
    done = ephemeral(running, "explain", *arguments)
    assert done.returncode == status
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_sandboxd_it_says_what_to_type(state: Path) -> None:
    done = ephemeral(state, "explain", "--last")
    assert done.returncode == 1
    assert "ephemeral up" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_the_predictor_still_believes_is_told_and_what_it_has_forgotten_too(running: Path, predictor: Path) -> None:
    told = json.loads(ephemeral(running, "explain", "c-first", "--json").stdout)
    assert "polars" in {sign["package"] for sign in told["belief"]["evidence"]}
    assert told["belief_missing"] == ""
    assert "polars" in ephemeral(running, "explain", "c-first").stdout
    forgotten = ephemeral(running, "explain", "c-second")
    assert "the predictor has forgotten this session" in forgotten.stdout


# ------------------------------------------------------------------------------------------------------------- the story


def test_each_step_is_the_cost_of_the_plan_before_it_or_of_the_code_that_waited() -> None:
    told = story.tell(material(plans=PLANS, moments=MOMENTS, executions=[execution()]))
    first, second = told["plans"]
    assert {kind: cost["ms"] for kind, cost in first["built"].items()} == {"restore": 150.0, "preload": 95.0}
    assert {kind: cost["ms"] for kind, cost in second["built"].items()} == {"mount": 2.0}
    assert {kind: cost["ms"] for kind, cost in told["executions"][0]["built"].items()} == {"repair": 20.0}
    assert told["outcome"]["built_ms"] == 247.0
    assert (first["ready_after_ms"], second["unused"]) == (500.0, ["matplotlib"])


def test_k2_answers_after_it_was_asked() -> None:
    marks = [moment("k2_prompt", 0.5, model="k2"), moment("k2_answer", 0.9, 700.0, outcome="kept")]
    assert [entry["kind"] for entry in story.tell(material(moments=marks))["timeline"]] == ["k2_prompt", "k2_answer"]


def test_each_question_to_k2_is_told_by_itself_and_its_parts_together() -> None:
    marks = [
        moment("k2_prompt", 0.5, part=1, parts=2, model="k2"), moment("k2_prompt", 0.5, part=2, parts=2, model="k2"),
        moment("k2_prompt", 0.8, part=1, parts=1, model="k2"), moment("k2_answer", 1.9, 700.0, outcome="kept"), moment("k2_answer", 2.0, 900.0, outcome="late"),
    ]
    entries = story.tell(material(moments=marks))["timeline"]
    assert [(entry["kind"], entry["n"], entry["k2"].get("outcome")) for entry in entries] == [
        ("k2_prompt", 2, None), ("k2_prompt", 1, None), ("k2_answer", 1, "kept"), ("k2_answer", 1, "late"),
    ]  # fmt: skip


def test_nothing_happens_before_the_beginning() -> None:
    """Code that opens its session came a moment before it, and what is noted when it was over began before."""
    plans = [plan(1, want("pandas", 0.7), ready_at=T - 5)]  # by the clock of another machine
    told = story.tell(material(plans=plans, moments=[moment("restore", 0.1, 400.0, "s1")], executions=[execution(after=-0.2)]))
    assert [(entry["kind"], entry["after_ms"]) for entry in told["timeline"]] == [("restore", 0.0), ("execution", 100.0), ("plan", 400.0)]
    assert told["plans"][0]["ready_after_ms"] is None


def test_a_plan_held_what_was_used_however_it_is_spelled() -> None:
    told = story.tell(material(plans=[plan(1, want("Scikit_Learn", 0.7), want("polars", 0.4))], executions=[execution(needed=["scikit-learn"])]))
    assert (told["plans"][0]["used"], told["plans"][0]["unused"]) == (["Scikit_Learn"], ["polars"])


def test_the_evidence_of_a_package_is_kept_as_it_hardened() -> None:
    rows = {row["package"]: row for row in story.tell(material(plans=PLANS, executions=[execution()]))["packages"]}
    assert [(s["kind"], s["probability"], s["proposer"]) for s in rows["pandas"]["evidence"]] == [("concept", 0.7, "learned"), ("import", 1.0, "seen")]
    assert {name: row["fate"] for name, row in rows.items()} == {"pandas": "used", "left-pad": "refused", "matplotlib": "unused", "scipy": "missed"}


def test_a_package_was_loaded_already_unless_its_own_modules_were_imported_late() -> None:
    ran = execution(needed=["scikit-learn", "scipy"], late_imports=["sklearn", "sklearn.tree"], tier="partial")
    rows = story.tell(material(plans=[plan(1, want("Scikit_Learn", 0.7))], executions=[ran]))["packages"]
    assert {row["package"]: row["use"]["loaded"] for row in rows} == {"Scikit_Learn": False, "scipy": True}


def test_what_an_import_ahead_was_to_save_and_to_cost_is_shown_where_it_was_weighed() -> None:
    weighed = [
        wire.Want(package="pandas", probability=0.7, proposer="learned", evidence="concept", decision="import", saves_ms=412.0, costs_ms=37.5),
        wire.Want(package="torch", probability=0.05, proposer="learned", evidence="concept", decision="available", saves_ms=150.0, costs_ms=912.0),
    ]
    told = story.tell(material(plans=[plan(1, *weighed)]))
    assert (told["plans"][0]["saves_ms"], told["plans"][0]["costs_ms"]) == (412.0, 37.5)  # torch is not imported ahead: no bet
    assert [(sign["decision"], sign["saves_ms"], sign["costs_ms"]) for row in told["packages"] for sign in row["evidence"]] == [
        ("import", 412.0, 37.5), ("available", 150.0, 912.0),
    ]  # fmt: skip
    page = shown(told)
    for words in ("saves ms", "costs ms", "912", "importing ahead is to save 412 ms and to cost 37.5 ms"):
        assert words in page
    assert "saves ms" not in shown(story.tell(material(plans=PLANS[:1])))


def test_packages_are_judged_as_the_dashboard_judges_them() -> None:
    agreed = json.loads(AGREED.read_text())
    plans = [plan(number, *(want(name, 0.5) for name in made["wants"]), accepted=[], refused=made["refused"]) for number, made in enumerate(agreed["plans"], 1)]
    executions = [execution(id=f"e{number}", after=3.0 + number, needed=needed) for number, needed in enumerate(agreed["executions"])]
    assert {row["package"]: row["fate"] for row in story.tell(material(plans=plans, executions=executions))["packages"]} == agreed["fates"]


@pytest.mark.parametrize(
    ("executions", "session", "verdict"),
    [
        ([execution(needed=["pandas"])], {}, "hit"),
        ([execution(needed=["torch"])], {}, "miss"),
        ([execution(needed=[])], {}, "none needed"),
        ([execution(needed=["pandas"]), execution(needed=[])], {}, "hit"),
        ([execution(needed=["pandas"]), execution(needed=["torch"])], {}, "partial"),
        ([execution(verdict="refused")], {}, "refused"),
        ([], {}, "wasted"),
        ([], {"builds": 0}, "nothing"),
        ([], {"state": "active"}, "open"),
        ([execution(state="running")], {"state": "active"}, "open"),
    ],
)
def test_the_outcome_is_one_word(executions: list[wire.Execution], session: dict[str, Any], verdict: str) -> None:
    given = material(executions=executions, session=material().session.model_copy(update=session))
    assert story.tell(given)["outcome"]["verdict"] == verdict


def test_a_session_of_which_nothing_is_recorded_is_a_story_too() -> None:
    told = story.tell(material())
    assert (told["timeline"], told["packages"], told["plans"]) == ([], [], [])


def test_names_that_would_steer_the_terminal_are_disarmed(running: Path) -> None:
    done = ephemeral(running, "explain", "x-hostile")
    assert "Session x-hostile of \N{REPLACEMENT CHARACTER}]0;owned" in done.stdout
    assert "\x1b" not in done.stdout
