"""Ollama's own chat and generate, requests and answers."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ephemeral.streams.ollama import Answer, turn
from ephemeral.streams.turn import Reported

CODE = 'import numpy as np  # 🐍\nprint("π")'


def digest(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()


def chat(done: str = "", **message: object) -> dict:
    ends = {"done_reason": done, "total_duration": 7, "eval_count": 3} if done else {}
    message = {"role": "assistant", "content": "", **message}
    return {"model": "qwen3", "created_at": "2026-11-24T00:00:00Z", "message": message, "done": bool(done), **ends}


def called(code: str, **fields: object) -> dict:
    return {**fields, "function": {"index": 0, "name": "run", "arguments": {"code": code, "n": 1.0}}}


PIECES = [
    chat(thinking="Hmm."),
    chat(thinking=" Yes."),
    chat(content="Let me "),
    chat(content="see.\n"),
    chat(tool_calls=[called(CODE, id="call_1")]),
    chat(tool_calls=[called("2", id="call_2")]),
    chat(done="stop"),
]

WHOLE_TURN = [
    ("reasoning_text", "Hmm. Yes.", ""),
    ("assistant_text", "Let me see.\n", ""),
    ("tool_call_started", "run", "call_1"),
    ("code", CODE, "call_1"),
    ("code_done", digest(CODE), "call_1"),
    ("tool_call_started", "run", "call_2"),
    ("code", "2", "call_2"),
    ("code_done", digest("2"), "call_2"),
    ("turn_ended", "tool_calls", ""),
]

DOCUMENT = chat(
    done="stop",
    thinking="Hmm. Yes.",
    content="Let me see.\n",
    tool_calls=[called(CODE, id="call_1"), called("2", id="call_2")],
)

GENERATED = [
    {"model": "m", "response": "", "thinking": "Hmm.", "done": False},
    {"model": "m", "response": "Let ", "done": False},
    {"model": "m", "response": "me.", "done": False},
    {"model": "m", "response": "", "done": True, "done_reason": "length", "context": [1, 2, 3]},
]


def lines(messages: list) -> bytes:
    return b"".join(json.dumps(message, ensure_ascii=False).encode("utf-8", "replace") + b"\n" for message in messages)


def test_a_streamed_answer_reads_the_same_however_it_is_cut(protocols) -> None:
    assert protocols.read_in_every_way(lambda: Answer(streamed=True), lines(PIECES)) == WHOLE_TURN


def test_an_answer_in_one_document_reads_like_a_streamed_one(protocols) -> None:
    whole = json.dumps(DOCUMENT, indent=1).encode()
    assert protocols.read_in_every_way(lambda: Answer(streamed=False), whole) == WHOLE_TURN


def test_generated_text_is_read_like_a_chats(protocols) -> None:
    turn_of = [("reasoning_text", "Hmm.", ""), ("assistant_text", "Let me.", ""), ("turn_ended", "length", "")]
    assert protocols.read_in_every_way(lambda: Answer(streamed=True), lines(GENERATED)) == turn_of
    whole = {**GENERATED[-1], "response": "Let me.", "thinking": "Hmm."}
    assert protocols.read_in_every_way(lambda: Answer(streamed=False), json.dumps(whole).encode()) == turn_of


def test_an_error_in_the_stream_ends_the_turn_and_so_does_its_breaking_off(protocols) -> None:
    error = {"error": "an error was encountered while running the model"}
    assert protocols.read(Answer(streamed=True), lines([PIECES[2], error, PIECES[3]]))[1:] == [
        {"kind": "turn_ended", "text": "error"}
    ]
    assert protocols.read(Answer(streamed=True), lines(PIECES[:3])[:-9])[-1] == {"kind": "turn_ended", "text": "cut"}


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_wrong_types_anywhere_never_raise_and_the_turn_still_ends_once(protocols, data) -> None:
    protocols.survives(Answer(streamed=True), lines(protocols.spoiled(data, [*PIECES[:-1], *GENERATED])))
    protocols.survives(Answer(streamed=False), json.dumps(protocols.spoiled(data, DOCUMENT)).encode())


# --------------------------------------------------------------------------------------------------------- requests


REQUEST = {
    "model": "qwen3",
    "tools": [{"type": "function", "function": {"name": "run"}}, {"type": "function"}, 7],
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi", "images": ["AA=="]},
        {"role": "assistant", "content": "", "thinking": "Hmm.", "tool_calls": [called("1"), called("2", id="call_2")]},
        {"role": "tool", "tool_name": "run", "content": "3"},
        {"role": "tool", "tool_call_id": "call_2", "content": "4"},
        {"role": "user", "content": None},
        7,
    ],
}


def test_messages_of_every_shape_are_read() -> None:
    assert [tuple(event.values()) for event in Reported().events("s", turn(REQUEST))] == [
        ("turn_started", "qwen3"),
        ("tool_declared", "run"),
        ("user_turn", "system", "Be brief."),
        ("user_turn", "user", "hi"),
        ("tool_result", "run", "3"),
        ("tool_result", "call_2", "4"),
    ]


def test_a_prompt_to_generate_is_a_user_message() -> None:
    messages = turn({"model": "m", "prompt": "hi", "system": "Be brief."}).messages
    assert [(message.role, message.text) for message in messages] == [("system", "Be brief."), ("user", "hi")]
    assert turn({"model": "m"}).messages == ()


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_request_is_too_strange(protocols, data) -> None:
    Reported().events("s", turn(protocols.spoiled(data, {**REQUEST, "prompt": "x", "context": [1]})))


# --------------------------------------------------------------------------------- the answer, in the next request


@settings(max_examples=100, deadline=None)
@given(
    text=st.text(),
    cut=st.integers(0, 20),
    arguments=st.none()
    | st.dictionaries(st.text(), st.integers() | st.floats(allow_nan=False) | st.text(), max_size=3),
    answered=st.booleans(),
    kept=st.booleans(),
)
def test_an_answer_is_recognised_in_the_next_requests_history(protocols, text, cut, arguments, answered, kept) -> None:
    function = {"name": "run", "arguments": arguments}
    calls = [] if arguments is None else [{"function": function, **({"id": "call_1"} if answered else {})}]
    reader = Answer(streamed=True)
    pieces = [chat(content=text[:cut]), chat(content=text[cut:]), chat(tool_calls=calls), chat(done="stop")]
    protocols.read(reader, lines(pieces))
    history = [{"function": function, **({"id": "call_1"} if answered and kept else {})} for _ in calls]
    (said,) = turn({"messages": [{"role": "assistant", "content": text.strip(), "tool_calls": history}]}).messages
    assert set(said.marks) <= set(reader.marks)
    assert bool(said.marks) == bool(text.strip() or calls)


def test_the_context_of_a_generated_answer_is_recognised_in_the_next_request() -> None:
    reader = Answer(streamed=True)
    reader.feed(lines(GENERATED))
    assert turn({"prompt": "more", "context": [1, 2, 3]}).previous in reader.marks
    assert turn({"prompt": "more", "context": [1, 2]}).previous not in reader.marks
    assert turn({"prompt": "more"}).previous == ""


def test_the_session_is_found_again(protocols) -> None:
    hi = {"role": "user", "content": "hi"}
    other = lines([chat(content="No."), chat(tool_calls=[called("7")]), chat(done="stop")])
    without_id = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"function": {"name": "run", "arguments": {"n": 1, "code": "2"}}}],
    }
    for said in (DOCUMENT["message"], {"role": "assistant", "content": "Let me see."}, without_id):
        following = {"messages": [hi, said, {"role": "tool", "content": "3"}]}
        protocols.finds_its_session(
            "/ollama/api/chat", "application/x-ndjson", {"messages": [hi]}, (lines(PIECES), other), following
        )
    whole = json.dumps(DOCUMENT).encode()
    protocols.finds_its_session(
        "/api/chat", "application/json; charset=utf-8", {"messages": [hi]}, (whole, b"{}"), following
    )


def test_the_session_of_a_generated_answer_is_found_again(protocols) -> None:
    other = lines([{"response": "No.", "done": True, "context": [7]}])
    first, following = {"prompt": "hi"}, {"prompt": "more", "context": [1, 2, 3]}
    protocols.finds_its_session("/api/generate", "application/x-ndjson", first, (lines(GENERATED), other), following)


@pytest.mark.parametrize("reason", ["load", "unload"])
def test_loading_a_model_says_nothing(protocols, reason) -> None:
    assert protocols.read(Answer(streamed=False), json.dumps(chat(done=reason)).encode()) == [
        {"kind": "turn_ended", "text": reason}
    ]
