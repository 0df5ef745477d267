"""The bet: what is imported ahead, how large a sandbox is, and when it is given back."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from ephemeral import settings
from ephemeral.costs import PRIORS, Prices, completed
from ephemeral.wire import Costs, Figure, ModuleCosts, Plan
from ephemeral_predictor import needs, planner, policy, sizes, turns
from ephemeral_predictor.costs import CostSource
from ephemeral_predictor.evidence import Evidence
from ephemeral_predictor.history import History, Observed, Run
from ephemeral_predictor.planner import Terms
from ephemeral_predictor.sandboxd import Sandboxd
from ephemeral_predictor.state import Belief, Decision

MIB, GIB = 1 << 20, 1 << 30
PRICES = Prices()


def host(import_ms: float = 600, mebibytes: float = 60, used: float = 10, ended: float = 300, **modules: tuple[float, float]) -> Costs:
    """A host on which a middling module takes this, and ``modules`` what they say."""
    return PRIORS.model_copy(
        update={
            "import_ms": Figure(value=import_ms), "memory_bytes": Figure(value=mebibytes * MIB),
            "until_used_seconds": Figure(value=used), "until_ended_seconds": Figure(value=ended),
            "modules": {name: ModuleCosts(import_ms=Figure(value=ms), memory_bytes=Figure(value=size * MIB)) for name, (ms, size) in modules.items()},
        }
    )  # fmt: skip


def break_even(modules: list[str], costs: Costs, prices: Prices = PRICES) -> float:
    """The least probability in hundredths at which the bet pays."""
    return next((p / 100 for p in range(101) if policy.bet(p / 100, modules, costs, prices).pays), 2.0)


# ------------------------------------------------------------------------------------------------ the bet


def test_the_default_prices_are_those_of_the_settings():
    assert Prices.from_settings() == Prices()


@pytest.mark.parametrize(
    ("import_ms", "mebibytes", "least", "most"),
    [
        pytest.param(600, 60, 0.34, 0.36, id="a middling package breaks even where the constant was"),
        pytest.param(15, 0, 0.26, 0.28, id="one that holds no memory costs only the processor"),
        pytest.param(4000, 400, 0.33, 0.37, id="torch is judged by its own numbers"),
        pytest.param(8400, 203, 0.27, 0.30, id="torch where it takes longer than it is large"),
        pytest.param(1000, 400, 0.50, 0.53, id="much memory for little time needs to be likely"),
    ],
)
def test_where_a_bet_breaks_even(import_ms: float, mebibytes: float, least: float, most: float):
    assert least <= break_even(["m"], host(m=(import_ms, mebibytes))) <= most


def test_the_sum_is_what_the_docstring_says():
    bet = policy.bet(0.35, ["middling"], host(), PRICES)
    assert bet.saves_ms == pytest.approx(210)
    assert bet.costs_ms == pytest.approx(60 / 1024 * (3.5 + 195) * 6 + 0.65 * 600 * 0.35)
    assert bet.pays


def test_what_is_certain_is_always_imported_and_what_is_impossible_never():
    for costs in (host(), host(4000, 400), host(5, 1), host(used=600, ended=600)):
        assert policy.bet(1.0, ["m"], costs, PRICES).pays
        assert not policy.bet(0.0, ["m"], costs, PRICES).pays


def test_a_host_where_sandboxes_stand_idle_for_long_bets_on_less():
    assert break_even(["m"], host(ended=5)) < break_even(["m"], host(ended=300)) < break_even(["m"], host(ended=3000))


@pytest.mark.parametrize("prices", [Prices(memory=60.0), Prices(cpu=3.5)])
def test_a_higher_price_imports_less(prices: Prices):
    assert break_even(["m"], host(), prices) > break_even(["m"], host()) > break_even(["m"], host(), Prices(0.0, 0.0))


def test_submodules_of_one_module_are_one_import_and_unknown_ones_count_as_middling():
    costs = host(sklearn=(7000, 60))
    assert policy.bet(0.5, ["sklearn.svm", "sklearn"], costs, PRICES) == policy.bet(0.5, ["sklearn"], costs, PRICES)
    assert policy.bet(0.5, ["never_seen"], costs, PRICES).saves_ms == 300
    assert policy.bet(0.5, [], costs, PRICES).saves_ms == 0


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "1e308"])
def test_a_price_that_is_none_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, text: str):
    monkeypatch.setenv("EPHEMERAL_CPU_PRICE", text)
    with pytest.raises(settings.SettingError, match="EPHEMERAL_CPU_PRICE"):
        Prices.from_settings()


@pytest.mark.parametrize(("said", "rate", "least", "most"), [
    (0.6, None, 0.6, 0.6), (0.6, 0.5, 0.599, 0.601), (0.05, 0.95, 0.44, 0.46), (0.6, 0.02, 0.07, 0.10), (0.85, 0.95, 0.98, 1.0),
    (0.0, 0.95, 0.0, 0.0), (1.0, 0.01, 1.0, 1.0), (0.5, 0.0, 0.05, 0.07), (0.5, 1.0, 0.93, 0.95),
])  # fmt: skip
def test_an_apps_share_of_sessions_with_code_moves_the_odds(said: float, rate: float | None, least: float, most: float):
    assert least <= policy.needs_code(said, rate) <= most


# ------------------------------------------------------------------------------------------------ in the plan


def believing(*evidence: Evidence, text: str = "Write a Python script that prints a number.", tool: bool = True) -> Belief:
    belief = Belief("s")
    if tool:
        belief.tool_declared("execute_code")
    belief.user_turn(text)
    belief.evidence.clear()
    for one in evidence:
        belief.add(one)
    return belief


def decisions(plan: Plan | None) -> dict[str, str | None]:
    assert plan is not None
    return {want.package: want.decision for want in plan.wants}


def test_what_does_not_pay_is_made_available_and_says_why():
    belief = believing(Evidence("humanize", 0.9, "k2", "k2"), Evidence("torch", 0.4, "learned", "history"))
    plan = planner.plan_for(belief, 1.0, terms=Terms(costs=host(torch=(500, 2000), humanize=(15, 1))))
    assert decisions(plan) == {"humanize": "import", "torch": "available"}
    assert plan is not None
    assert plan.modules == ["humanize"]
    for want in plan.wants:
        assert want.saves_ms is not None
        assert want.costs_ms is not None
        assert (want.saves_ms > want.costs_ms) == (want.decision == "import")


def test_code_that_names_an_import_has_it_imported_whatever_it_costs():
    belief = believing()
    belief.code("c", "import torch\n")
    plan = planner.plan_for(belief, 1.0, terms=Terms(costs=host(torch=(4000, 2000))))
    assert decisions(plan)["torch"] == "import"


def test_an_import_that_was_begun_stays_while_its_package_is_wanted():
    belief = believing(Evidence("torch", 0.4, "learned", "history"))
    cheap, dear = Terms(costs=host(torch=(4000, 10))), Terms(costs=host(torch=(400, 4000)))
    first = planner.plan_for(belief, 1.0, terms=cheap)
    assert decisions(first) == {"torch": "import"}
    assert decisions(planner.plan_for(belief, 2.0, terms=dear)) == {"torch": "available"}
    assert decisions(planner.plan_for(belief, 2.0, first, terms=dear)) == {"torch": "import"}
    belief.rejected.add("torch")
    dropped = planner.plan_for(belief, 3.0, first, terms=dear)
    assert decisions(dropped) == {}
    assert dropped is not None
    assert dropped.modules == []


def test_harder_evidence_makes_an_import_of_what_was_available():
    belief = believing(Evidence("torch", 0.4, "learned", "history"))
    terms = Terms(costs=host(torch=(500, 2000)))
    before = planner.plan_for(belief, 1.0, terms=terms)
    assert decisions(before) == {"torch": "available"}
    belief.code("c", "import torch\n")
    after = planner.plan_for(belief, 2.0, before, terms)
    assert decisions(after) == {"torch": "import"}
    assert after is not None
    assert planner.is_material(after, before)


def test_an_app_whose_sessions_always_run_code_gets_no_more_than_a_bare_sandbox_for_what_may_be_talk():
    def asked(tool: bool = True) -> Belief:
        return believing(Evidence("pandas", 0.9, "learned", "history"), text="Explain how one sorts a list", tool=tool)

    assert planner.plan_for(asked(), 1.0) is None
    plan = planner.plan_for(asked(), 1.0, terms=Terms(rate=0.97))
    assert decisions(plan) == {}
    assert plan is not None
    assert plan.modules == []
    assert 0.5 < plan.needs_code < 0.9
    assert planner.plan_for(asked(tool=False), 1.0, terms=Terms(rate=0.97)) is None


def test_plain_talk_gets_nothing_whatever_the_app_usually_does():
    for text in ("hello", "Where does that greeting come from, and how do I answer?"):
        assert planner.plan_for(believing(text=text), 1.0, terms=Terms(rate=0.999)) is None


def test_an_app_whose_sessions_never_run_code_gets_nothing_before_code_begins():
    terms = Terms(rate=0.02)
    belief = believing(Evidence("pandas", 0.9, "learned", "concept"), text="Compute the average of these numbers: 1 2 3")
    assert planner.plan_for(belief, 1.0, terms=terms) is None
    belief.code("c", "import pandas\n")
    assert decisions(planner.plan_for(belief, 1.0, terms=terms))["pandas"] == "import"


def test_who_wants_the_standard_library_alone_gets_no_packages_of_earlier_guesses():
    belief = believing(Evidence("pandas", 0.9, "k2", "k2"))
    before = planner.plan_for(belief, 1.0)
    assert decisions(before) == {"pandas": "import"}
    belief.user_turn("Write it in Python with the standard library only.")
    plan = planner.plan_for(belief, 2.0, before)
    assert decisions(plan) == {}
    assert plan is not None
    assert planner.is_material(plan, before)
    belief.code("c", "import pandas\n")  # the model does not listen
    assert decisions(planner.plan_for(belief, 3.0, plan)) == {"pandas": "import"}


# ------------------------------------------------------------------------------------------------ sizes


@pytest.mark.parametrize(("text", "size"), [
    ("I have a 3 GB CSV of orders", 3 * GIB), ("[file: x.csv, 812 MB]", 812 * MIB), ("my log is 1,5GB big", 3 * GIB // 2),
    ("a 2.5-GB parquet dataset", 5 * GIB // 2), ("1,500 MB of data", 1500 * MIB), ("The dataset (about 20 gigs)", 20 * GIB),
    ("2 gigabytes of logs and a 90 MB table", 2 * GIB), ("memory is 8 GB; the csv has 40 MB", 40 * MIB), ("data.json, 300 kb", 300 << 10),
    ("I have 16 GB of RAM for this csv", 0), ("a file limit of 512MB", 0), ("the file comes in at 100 MB/s", 0), ("a model of 14 GB", 0),
    ("files under 10 MB", 0), ("Users may upload files of up to 10 GB.", 0), ("max file size: 2 GB", 0), ("up to now the csv has 3 GB", 3 * GIB), ("the csv is larger than 3 GB", 3 * GIB), ("3 CSVs", 0), ("", 0), ("version 3.4 GBK file", 0),
])  # fmt: skip
def test_sizes_of_data_are_found_and_those_of_machines_are_not(text: str, size: int):
    assert sizes.data_bytes(text) == size


def test_a_text_full_of_sizes_takes_no_time():
    began = time.process_time()
    sizes.data_bytes("a 12 MB file " * 100_000)
    assert time.process_time() - began < 1


def memory(**given: Any) -> int | None:
    return sizes.memory_bytes(**{"asked": None, "known": None, "data": 0, "before": None, "stands": False, "default": 2 * GIB, "most": 16 * GIB, **given})


@pytest.mark.parametrize(("given", "limit"), [
    ({}, None), ({"stands": True}, None),
    ({"asked": GIB}, GIB), ({"asked": GIB, "known": 700 * MIB}, 1536 * MIB), ({"asked": 4 * GIB, "known": 100 * MIB}, 4 * GIB),
    ({"known": 100 * MIB}, None), ({"known": 1100 * MIB}, 2304 * MIB), ({"known": 3 * GIB}, 6 * GIB),
    ({"data": 100 * MIB}, None), ({"data": 2 * GIB}, 10 * GIB), ({"data": 5 * GIB}, 16 * GIB), ({"data": 5 * GIB, "most": None}, None),
    ({"data": 5 * GIB, "most": GIB}, None), ({"data": 300 * MIB, "known": 100 * MIB}, None), ({"data": 2 * GIB, "asked": 4 * GIB}, 10 * GIB),
    ({"known": 100 * MIB, "stands": True}, None), ({"known": 100 * MIB, "stands": True, "before": 512 * MIB}, 2 * GIB),
    ({"stands": True, "before": 6 * GIB}, 6 * GIB), ({"asked": GIB, "stands": True, "before": 6 * GIB}, GIB),
    ({"data": 900 << 40, "most": 2 << 40}, 1 << 40), ({"known": 1 << 40}, 1 << 40),
])  # fmt: skip
def test_the_limit_of_a_sandbox(given: dict[str, Any], limit: int | None):
    assert memory(**given) == limit


# ------------------------------------------------------------------------------------------------ what the host says


def test_what_a_host_has_not_measured_is_taken_from_the_priors():
    said = host(pandas=(2000, 99)).model_copy(update={"boot_ms": Figure(value=77, n=3, source="measured")})
    costs = completed(said)
    assert costs.boot_ms.value == 77
    assert costs.import_ms == PRIORS.import_ms
    assert costs.modules["pandas"].import_ms.value == 2000
    assert costs.modules["pandas"].memory_bytes == PRIORS.modules["pandas"].memory_bytes  # n is 0: not measured
    assert costs.modules["torch"] == PRIORS.modules["torch"]


@pytest.fixture
async def answering(folder):
    """A sandboxd whose answer to GET /v1/costs is ``answers["costs"]``."""
    answers: dict[str, Any] = {}

    async def costs(request: web.Request) -> web.Response:
        if "text" in answers:
            return web.Response(text=answers["text"], content_type="application/json")
        return web.json_response(answers["costs"]) if "costs" in answers else web.Response(status=404)

    app = web.Application()
    app.router.add_get("/v1/costs", costs)
    app.router.add_get("/v1/host", lambda request: _answer({"memory_budget_bytes": 8 * GIB}))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.UnixSite(runner, str(folder / "costs.sock")).start()
    client = Sandboxd(f"unix:{folder / 'costs.sock'}")
    await client.open()
    yield SimpleNamespace(answers=answers, source=CostSource(client))
    await client.close()
    await runner.cleanup()


async def _answer(body: Any) -> web.Response:
    return web.json_response(body)


async def test_the_hosts_costs_are_asked_for_and_anything_else_leaves_the_priors(answering):
    assert answering.source.costs is PRIORS
    assert await answering.source.poll() is False  # a sandboxd older than its costs
    assert answering.source.memory_budget_bytes == 8 * GIB
    for none in ({"boot_ms": "soon"}, [], "x", host().model_dump(mode="json") | {"import_ms": {"value": -600.0, "n": 3}}, host().model_dump(mode="json") | {"fetch_ms": {"value": 1e308}}):
        answering.answers["costs"] = none
        assert await answering.source.poll() is True
        assert answering.source.costs is PRIORS
    answering.answers["costs"] = host().model_copy(update={"boot_ms": Figure(value=77, n=3, source="measured")}).model_dump(mode="json")
    assert await answering.source.poll() is True
    assert answering.source.costs.boot_ms.value == 77
    answering.answers["costs"] = {}
    await answering.source.poll()
    assert answering.source.costs.boot_ms.value == 77  # what was said a minute ago still holds


@pytest.mark.parametrize("text", ["[" * 100_000, "{", '{"boot_ms": NaN}', "null", ""])
async def test_an_answer_that_is_no_json_is_none(answering, text: str):
    answering.answers["text"] = text
    await answering.source.poll()
    assert answering.source.costs is PRIORS


# ------------------------------------------------------------------------------------------------ the end of it


@pytest.mark.parametrize(("text", "back"), [
    ("never mind", True), ("Forget it, tell me a joke.", True), ("no code please", True), ("Let's talk about something else.", True),
    ("thanks!", False), ("yes, please", False), ("", False), ("never mind the outliers", False), ("Never mind the earlier error, go on", False),
    ("Don't run it yet, tell me what you will do", False), ("There is no code in the second cell", False), ("don't run it", True), ("Never mind pandas: write it in Python with polars.", False),
])  # fmt: skip
def test_a_user_takes_it_back(text: str, back: bool):
    assert turns.takes_back(text) is back


def test_one_turn_without_code_is_not_the_end_and_two_are():
    said = turns.Turns()
    said.spoke("yes, please", needs.probability("yes, please"))
    assert not said.over
    said.spoke("What is the capital of France?", needs.probability("What is the capital of France?"))
    assert said.over
    said.spoke("Write a Python script that plots it.", needs.probability("Write a Python script that plots it."))
    assert not said.over
    said.spoke("never mind", needs.probability("never mind"))
    assert said.over
    said.code_came()
    assert not said.over


def user(text: str) -> dict[str, Any]:
    return {"kind": "user_turn", "text": text, "role": "user"}


PLOT = "Use pandas to write a Python script that plots sales.csv"


async def test_a_bet_on_a_conversation_that_moved_on_is_given_back(start, sandboxd):
    predictor = await start()
    await predictor.send(user(PLOT))
    assert (await sandboxd.plan(1))["action"] == "provision"
    await predictor.send(user("thanks!"))
    await predictor.send(user("What is the capital of France?"))
    released = await sandboxd.plan(2)
    assert released["action"] == "release"
    assert released["wants"] == []
    await predictor.send(user("And of Spain?"))
    await predictor.send(user(PLOT))
    again = await sandboxd.plan(3)
    assert again["action"] == "provision"
    assert "pandas" in {want["package"] for want in again["wants"]}


async def test_never_mind_gives_it_back_at_once(start, sandboxd):
    predictor = await start()
    await predictor.send(user(PLOT))
    await sandboxd.plan(1)
    await predictor.send(user("never mind"))
    assert (await sandboxd.plan(2))["action"] == "release"


async def test_code_in_the_answer_itself_is_not_given_back_line_by_line(start, sandboxd):
    predictor = await start()
    await predictor.send(user(PLOT))
    await sandboxd.plan(1)
    await predictor.send(user("thanks!"))
    await predictor.send(user("yes, please"))
    assert (await sandboxd.plan(2))["action"] == "release"
    for number, line in enumerate(["```python\nimport pandas\n", "import seaborn\n", "import scipy\n"], 3):
        await predictor.send({"kind": "assistant_text", "text": line})
        assert (await sandboxd.plan(number))["action"] == "provision"
    assert {want["package"] for want in sandboxd.plans[-1]["wants"]} == {"pandas", "seaborn", "scipy"}
    await predictor.send(user("thanks!"))  # the first that asks for none and gets none
    await predictor.send({"kind": "tool_result", "text": "done"})
    assert len(sandboxd.plans) == 5
    await predictor.send(user("What is the capital of France?"))
    assert (await sandboxd.plan(6))["action"] == "release"


async def test_a_sandbox_in_which_code_ran_is_kept_but_expects_less(start, sandboxd):
    predictor = await start()
    await predictor.send(user(PLOT), {"kind": "code", "call": "c", "text": "import pandas\n"}, {"kind": "code_done", "call": "c"})
    ran = await sandboxd.plan(1)
    assert ran["needs_code"] == 1.0
    await predictor.send(user("never mind the rest"))
    kept = await sandboxd.plan(2)
    assert kept["action"] == "provision"
    assert kept["needs_code"] < 0.3
    assert set(kept["modules"]) == set(ran["modules"])
    await predictor.send({"kind": "code", "call": "d", "text": "import pandas\n"})
    assert (await sandboxd.plan(3))["needs_code"] == 1.0


async def test_a_package_that_is_rejected_leaves_the_plan(start, sandboxd):
    predictor = await start()
    await predictor.send(user(PLOT))
    assert "pandas" in (await sandboxd.plan(1))["modules"]
    await predictor.send(user("Don't use pandas: use polars to write a Python script that plots sales.csv"))
    plan = await sandboxd.plan(2)
    assert "pandas" not in {want["package"] for want in plan["wants"]} | set(plan["modules"])
    assert "polars" in plan["modules"]


async def test_a_conversations_history_that_comes_at_once_is_not_taken_for_its_end(start, sandboxd):
    predictor = await start()
    await predictor.send(user("hi"), user("What can you do?"), user("thanks"), user(PLOT))
    assert (await sandboxd.plan(1))["action"] == "provision"


async def test_data_that_the_conversation_speaks_of_makes_room_for_itself(start, sandboxd):
    predictor = await start(bounds=sizes.Bounds(default=GIB))
    while predictor.listener.costs.memory_budget_bytes is None:
        await predictor.listener.costs.poll()
    await predictor.send(user(PLOT), {"kind": "tool_result", "text": "[file: orders.csv, 300 MB]"})
    assert (await sandboxd.plan(1))["memory_bytes"] == 1536 * MIB
    await predictor.send(user("Actually the CSV is 30 GB."))
    assert (await sandboxd.plan(2))["memory_bytes"] == 2 * GIB  # half of what this host has


async def test_what_such_code_took_before_is_the_size_of_the_first_sandbox(start, sandboxd, tmp_path):
    history = History(tmp_path / "history.db")
    for number in range(12):
        history.record(Observed(f"b{number}", "demo", time.time() - 60, time.time(), (Run(frozenset({"pandas", "numpy", "matplotlib"}), 1300 * MIB),)))
    history.close()
    predictor = await start(history=tmp_path / "history.db")
    await predictor.send({"kind": "turn_started", "app": "demo"}, user(PLOT))
    assert (await sandboxd.plan(1))["memory_bytes"] == 2816 * MIB


async def test_what_k2_decides_of_the_size_is_not_made_smaller(start, sandboxd):
    predictor = await start()
    await predictor.send(user(PLOT))
    await sandboxd.plan(1)
    predictor.listener.decided("s1", Decision("provision", {"pandas": None}, memory_bytes=3 * GIB), 1)
    assert (await sandboxd.plan(2))["memory_bytes"] == 3 * GIB
