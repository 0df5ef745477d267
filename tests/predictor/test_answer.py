"""K2's answer, well formed, broken or hostile; and what stops us from asking."""

import json
import math

import pytest

from ephemeral_predictor.reasoned.answer import Answer, Found
from ephemeral_predictor.reasoned.breaker import Breaker
from ephemeral_predictor.reasoned.budget import Budget, Limits


def read(text: str, step: int = 3) -> Answer:
    answer = Answer()
    for start in range(0, len(text), step):
        answer.feed(text[start : start + step])
    return answer


def said(text: str) -> tuple:
    """(action, packages, modules, memory in MiB, CPUs, sandboxes)"""
    found = read(text).found()
    return found.action, found.versions, list(found.modules), found.memory_bytes and found.memory_bytes >> 20, found.cpus, found.sandboxes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("package pandas\nimport pandas\ndone\n", ("provision", {"pandas": None}, ["pandas"], None, None, None)),
        ("package pandas==2.2.3\nmemory 4G\ncpus 2\nsandboxes 3\ndone", ("provision", {"pandas": "2.2.3"}, [], 4096, 2.0, 3)),
        ("memory 512M\ndone", ("resize", {}, [], 512, None, None)),
        ("cpus 1.5\ndone", ("resize", {}, [], None, 1.5, None)),
        ("release\ndone", ("release", {}, [], None, None, None)),
        ("sandboxes 0\ndone", ("release", {}, [], None, None, 0)),
        ("nothing\ndone", ("nothing", {}, [], None, None, None)),
        ("keep\ndone", ("keep", {}, [], None, None, None)),
        ("done", ("provision", {}, [], None, None, None)),
        ("package sklearn\npackage cv2\ndone", ("provision", {"scikit-learn": None, "opencv-python-headless": None}, [], None, None, None)),
        ("import os\npackage json\ndone", ("provision", {}, [], None, None, None)),
        ("I think the code will not need anything.", (None, {}, [], None, None, None)),
        ("", (None, {}, [], None, None, None)),
    ],
)
def test_the_lines_make_the_decision(text, expected):
    assert said(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Sure! Here it is:\n```\n- package: `pandas`\n* **import pandas**\n1. memory: 2 GiB\n```\nHope this helps",
        "1. **package**: `pandas`\n2. **import**: `pandas`\n3. **memory**: `2G`\n",
        "packages: pandas\nimports: pandas\nMemory: 2G",
        "packages:\n- pandas\n\nimport pandas as pd\nmemory=2048M",
        "package pandas[excel]>=2.0  # reads the file\nfrom pandas import DataFrame, Series\nmemory 2 GB\nDone!",
        "Package pandas - for the frames\nimport pandas, pandas\nmemory 2G (the file is large)\ndone.",
        json.dumps({"packages": ["pandas"], "imports": ["pandas"], "memory": "2G"}),
        "```json\n" + json.dumps({"packages": [{"name": "pandas", "version": "latest"}], "modules": ["pandas"], "memory_gb": 2}, indent=1) + "\n``` Good luck!",
        json.dumps({"memory": "2G", "imports": ["pandas"], "packages": {"pandas": None}})[:-2],
    ],
)
def test_a_broken_answer_is_repaired(text):
    assert said(text) == ("provision", {"pandas": None}, ["pandas"], 2048, None, None)


@pytest.mark.parametrize("action", ["nothing", "release", "keep"])
def test_an_action_in_json_counts(action):
    assert read(json.dumps({"action": action})).found().action == action
    assert read(json.dumps({action: True, "packages": []})).found().action == action


@pytest.mark.parametrize(
    "line",
    [
        "package ../../etc/passwd", "package --index-url=http://e", "package git+ssh://x", "package evil; rm -rf /", "package a @ http://e",
        "package x\x00y", "package " + "a" * 200, "package -r requirements.txt", "memory 900T", "memory -1G", "memory 1", "cpus -1", "cpus 0", "cpus 1e9", "cpus nan",
        "import __import__('os')", "import a;b", "import " + ".".join("a" * 150), "sandboxes -1", "sandboxes 1000", "package", "import a b c d",
        "from x import " + "y" * 1000, "memory " + "9" * 400, '{"packages": ["../x", {"name": ["y"]}, 7, null], "memory": [[1]], "cpus": {"a": 1}}',
    ],
)  # fmt: skip
def test_what_is_no_name_or_out_of_bounds_is_nothing(line):
    found = read(line + "\npackage torch\ndone").found()
    assert found.versions == {"torch": None}
    assert (found.memory_bytes, found.cpus, found.sandboxes, list(found.modules)) == (None, None, None, [])
    assert not read(line).found().versions


def test_reasoning_never_decides():
    text = "First I thought:\npackage tensorflow\ndone\nbut no.</think>\npackage torch\ndone\n"
    assert read(text).found().versions == {"torch": None}
    assert read("<think>" + text).found().versions == {"torch": None}
    assert read("<think>package tensorflow\n").found() == Found()
    answer = Answer()
    answer.feed("", reasoning="package tensorflow\ndone\n")
    answer.feed("package torch\ndone\n")
    assert answer.complete
    assert answer.found().versions == {"torch": None}
    assert answer.reasoning == "package tensorflow\ndone\n"


def test_of_an_answer_that_was_cut_only_whole_lines_count_and_no_reasoning():
    for text, expected in [
        ("package torch\npackage tensor", {"torch": None}),
        ("Hm.</think>\npackage torch\npackage tensor", {"torch": None}),
        ("I thought:\npackage torch\npackage tensor", {}),
        ("Hm.\npackage wrong\n</thin", {}),
    ]:
        answer = read(text)
        answer.cut = True
        assert answer.found().versions == expected


@pytest.mark.parametrize("step", [1, 2, 5, 100])
def test_an_answer_is_complete_as_soon_as_done_stands_there(step):
    assert read("package torch\ndone", step).complete
    assert not read("package torch\n", step).complete
    assert not read("Let me think.\npackage torch\ndone\n", step).complete  # may be reasoning without its tag
    assert not read("<think>\ndone\n", step).complete
    assert read("Let me think.\ndone\n</think>\npackage torch\ndone", step).complete


def test_an_endless_answer_is_cut():
    answer = Answer()
    for _ in range(300):
        answer.feed("package a\n" * 100, reasoning="hm " * 1000)
    assert answer.complete
    assert len(answer.found().versions) == 1
    assert len(answer.content) + len(answer.reasoning) < 100_000
    many = read("".join(f"package p{number}\nimport m{number}\n" for number in range(1000)) + "done", 1000).found()
    assert (len(many.versions), len(many.modules)) == (16, 32)


# --------------------------------------------------------------------------------------------- when to leave it alone


def test_the_breaker_opens_after_failures_in_a_row_and_lets_one_try_through_later():
    now = [0.0]
    breaker = Breaker(limit=2, pause_seconds=10, clock=lambda: now[0])
    breaker.failed("no route")
    assert breaker.allows()
    assert breaker.describe() == "closed"
    breaker.failed("no route")
    assert not breaker.allows()
    assert breaker.describe() == "open for 10 s: no route"
    now[0] = 11
    assert breaker.allows()
    assert not breaker.allows()  # one is trying
    breaker.abandoned()
    assert breaker.allows()
    breaker.failed("no route")
    now[0] = 22
    assert not breaker.allows()  # twice as long
    now[0] = 32
    assert breaker.allows()
    breaker.succeeded()
    assert breaker.allows()
    assert breaker.allows()
    assert breaker.describe() == "closed"


def test_a_breaker_opened_for_good_stays_open_whatever_late_answers_say():
    now = [0.0]
    breaker = Breaker(clock=lambda: now[0])
    breaker.open("sunset")
    breaker.open("overloaded", 5.0)
    breaker.succeeded()
    now[0] = 1e9
    assert not breaker.allows()
    assert breaker.describe().startswith("open until restarted")


def test_the_budget_is_of_the_last_hour_and_sets_aside_what_is_under_way():
    now = [1e9]
    budget = Budget(Limits(tokens_per_hour=10_000), clock=lambda: now[0])
    first = budget.reserve(1000, 4000)
    second = budget.reserve(1000, 8000)
    assert (first.written, second.written) == (4000, 4000)
    assert budget.reserve(1, 300) is None
    budget.settle(first, 1000, 500)
    budget.settle(second, 0, 0)  # it was never answered
    assert budget.tokens() == 1500
    third = budget.reserve(1000, 8192)
    assert third.written == 7500
    budget.settle(third, 1000, 7500)
    assert budget.reserve(0, 300) is None
    now[0] += 2 * 3600
    assert budget.reserve(1000, 8192).written == 8192


def test_money_ends_questions_too_and_a_restart_forgets_none(tmp_path):
    now = [1e9]
    limits = Limits(money_per_day=1.0, price_read=1.0, price_written=10.0)
    path = tmp_path / "spending.json"
    budget = Budget(limits, path, clock=lambda: now[0])
    budget.settle(budget.reserve(500_000, 1000), 500_000, 1000)
    assert budget.money() == pytest.approx(0.51)
    again = Budget(limits, path, clock=lambda: now[0])
    assert again.money() == pytest.approx(0.51)
    assert again.reserve(400_000, 100_000).written == pytest.approx(9000, abs=1)
    assert again.reserve(600_000, 1000) is None
    now[0] += 2 * 86_400
    assert Budget(limits, path, clock=lambda: now[0]).money() == 0
    assert math.isclose(Budget(Limits()).money(), 0)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"x": 1}', '{"1000000000": [1]}', '{"1000000000": [-5, 1]}', '{"99999999999": [1, 1]}'])
def test_a_spoiled_file_of_spending_is_none(tmp_path, text):
    path = tmp_path / "spending.json"
    path.write_text(text)
    assert Budget(Limits(tokens_per_hour=1000), path, clock=lambda: 1e9).tokens() == 0


def test_a_budget_that_cannot_be_written_down_still_counts(tmp_path):
    budget = Budget(Limits(tokens_per_hour=1000), tmp_path / "nowhere" / "spending.json")
    budget.settle(budget.reserve(100, 500), 100, 500)
    assert budget.tokens() == 600
