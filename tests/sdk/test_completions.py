"""OpenAI's legacy completions, requests and answers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ephemeral.streams import apis
from ephemeral.streams.completions import Answer, turn
from ephemeral.streams.conversation import Conversations
from ephemeral.streams.turn import Reported, mark_of


def piece(text: str, finish: str | None = None, index: int = 0) -> dict:
    choice = {"text": text, "index": index, "logprobs": None, "finish_reason": finish}
    return {"id": "cmpl-1", "object": "text_completion", "model": "m", "choices": [choice]}


PIECES = [
    piece(" Let "),
    piece("alternatively", index=1),
    piece("me see 🐍.\n"),
    piece("", "stop"),
    piece("", "length", 1),
]
WHOLE_TURN = [("assistant_text", " Let me see 🐍.\n", ""), ("turn_ended", "stop", "")]
DOCUMENT = {**piece(" Let me see 🐍.\n", "stop"), "usage": {"total_tokens": 3}}


def sse(messages: list) -> bytes:
    return b"".join(b"data: " + json.dumps(message).encode() + b"\n\n" for message in messages) + b"data: [DONE]\n\n"


def test_an_answer_reads_the_same_however_it_is_cut(protocols) -> None:
    assert protocols.read_in_every_way(lambda: Answer(streamed=True), sse(PIECES)) == WHOLE_TURN
    assert protocols.read_in_every_way(lambda: Answer(streamed=False), json.dumps(DOCUMENT).encode()) == WHOLE_TURN


def test_an_answer_is_recognised_by_its_id_and_its_text() -> None:
    reader = Answer(streamed=True)
    reader.feed(sse(PIECES))
    assert reader.marks == ["cmpl-1", mark_of("Let me see 🐍.")]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_wrong_types_anywhere_never_raise_and_the_turn_still_ends_once(protocols, data) -> None:
    protocols.survives(Answer(streamed=True), sse(protocols.spoiled(data, PIECES)))
    protocols.survives(Answer(streamed=False), json.dumps(protocols.spoiled(data, DOCUMENT)).encode())


@pytest.mark.parametrize(
    ("prompt", "said"),
    [("hi", "hi"), (["a", "b"], "a\nb"), ([1, 2], ""), ([[1], [2]], ""), (None, ""), ({}, ""), (["\ud800"], "\ufffd")],
)
def test_a_prompt_is_a_user_message(prompt, said) -> None:
    events = Reported().events("s", turn({"model": "m", "prompt": prompt}))
    assert [event.get("text") for event in events] == [None, *([said] if said else [])]


def test_each_prompt_begins_a_conversation() -> None:
    sent: list[dict] = []
    conversations = Conversations(sent.append)
    api = apis.find("POST", "/v1/completions")
    assert api is not None
    sessions = set()
    for _ in range(2):
        exchange = conversations.begin(api, "/v1/completions", {}, json.dumps({"model": "m", "prompt": "hi"}).encode())
        assert exchange is not None
        exchange.answer(200, {"content-type": "text/event-stream"})
        exchange.feed(sse(PIECES))
        exchange.end()
        sessions.add(exchange.session)
    assert len(sessions) == 2
    assert [event["kind"] for event in sent[:3]] == ["turn_started", "user_turn", "assistant_text"]
