"""K2's answer, well formed, broken or hostile."""

import pytest

from ephemeral_predictor.reasoned.answer import Answer
from ephemeral_predictor.reasoned.breaker import Breaker
from ephemeral_predictor.state import Decision


def read(text: str, step: int = 3) -> Answer:
    answer = Answer()
    for start in range(0, len(text), step):
        answer.feed(text[start : start + step])
    return answer


@pytest.mark.parametrize(
    ("text", "decision"),
    [
        ("package pandas\nimport pandas\ndone\n", Decision("provision", {"pandas": None}, ("pandas",))),
        ("package pandas==2.2.3\nmemory 4G\ncpus 2\ndone", Decision("provision", {"pandas": "2.2.3"}, (), 4 << 30, 2.0)),
        ("memory 512M\ndone", Decision("resize", memory_bytes=512 << 20)),
        ("cpus 1.5\ndone", Decision("resize", cpus=1.5)),
        ("release\ndone", Decision("release")),
        ("nothing\ndone", Decision("nothing")),
        ("done", Decision("provision")),
        ("package sklearn\npackage cv2\ndone", Decision("provision", {"scikit-learn": None, "opencv-python-headless": None})),
        # broken ones
        ("Sure! Here it is:\n```\n- package: `pandas`\n* **import pandas**\n1. memory: 2 GiB\n```\nHope this helps",
         Decision("provision", {"pandas": None}, ("pandas",), 2 << 30)),
        ("package pandas\npackage num", Decision("provision", {"pandas": None, "num": None})),
        ("package ../../etc/passwd\npackage --index-url=http://e\npackage git+ssh://x\nmemory 900T\ncpus -1\ndone", Decision("provision")),
        ("I think the code will not need anything.", None),
        ("", None),
        ("import os\npackage json\ndone", Decision("provision")),
    ],
)  # fmt: skip
def test_the_lines_that_parse_make_the_decision(text, decision):
    answer = read(text)
    assert answer.decision() == decision


def test_reasoning_never_decides():
    text = "First I thought:\npackage tensorflow\ndone\nbut no.</think>\npackage torch\ndone\n"
    assert read(text).decision() == Decision("provision", {"torch": None})
    assert read("<think>" + text).decision() == Decision("provision", {"torch": None})
    answer = Answer()
    answer.feed("", reasoning="package tensorflow\ndone\n")
    answer.feed("package torch\ndone\n")
    assert answer.complete
    assert answer.decision() == Decision("provision", {"torch": None})


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
        answer.feed("package a\n" * 100)
    assert answer.complete
    assert len(answer.decision().versions) == 1


def test_the_breaker_opens_after_failures_in_a_row_and_lets_one_try_through_later():
    now = [0.0]
    breaker = Breaker(limit=2, pause_seconds=10, clock=lambda: now[0])
    breaker.failed()
    assert not breaker.is_open
    breaker.failed()
    assert breaker.is_open
    now[0] = 11
    assert not breaker.is_open
    breaker.failed()
    assert breaker.is_open
    now[0] = 22
    breaker.succeeded()
    assert not breaker.is_open
