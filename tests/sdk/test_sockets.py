"""Which WebSockets are read, and OpenAI's Responses over one."""

from __future__ import annotations

import gc
import hashlib
import json
import tracemalloc

import openai.types.responses as documented
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from ephemeral.streams import sockets
from ephemeral.streams.conversation import Conversations
from ephemeral.streams.realtime import RealtimeSocket
from ephemeral.streams.responses_socket import ResponsesSocket

CODE = 'import numpy as np  # 🐍\nprint("π")'
ARGUMENTS = json.dumps({"code": CODE})
DIGEST = hashlib.sha256(CODE.encode()).hexdigest()

Line = tuple[str, dict]
"""Who sends (``>`` the client, ``<`` the server), and the message."""


@pytest.mark.parametrize(
    ("path", "socket"),
    [
        ("/v1/responses", ResponsesSocket),
        ("/openai/v1/responses/?x=1", ResponsesSocket),
        ("/v1/realtime?model=gpt-realtime", RealtimeSocket),
        ("/openai/realtime?api-version=1&deployment=d", RealtimeSocket),
        ("/v1/responses/resp_1", None),
        ("/v1/realtime/translations", None),
        ("/v1/chat/completions", None),
        ("", None),
    ],
)
def test_a_socket_is_told_by_its_path(path, socket) -> None:
    assert sockets.find(path) is socket


# ------------------------------------------------------------------------------------------ responses over WebSocket


def response(identity: str, status: str = "in_progress", **more: object) -> dict:
    base = {
        "id": identity, "object": "response", "created_at": 1, "status": status, "error": None, "incomplete_details": None,
        "instructions": None, "metadata": {}, "model": "gpt-5", "output": [], "parallel_tool_calls": True,
        "temperature": 1.0, "tool_choice": "auto", "tools": [], "top_p": 1.0, "previous_response_id": None,
    }  # fmt: skip
    return {**base, **more}


def ask(text: str | list, previous: str | None = None, **more: object) -> Line:
    said = {"previous_response_id": previous} if previous else {"instructions": "Be brief."}
    return (">", {"type": "response.create", "model": "gpt-5", "store": False, "input": text, **said, **more})


def answer(identity: str, *items: list[dict], end: dict | None = None, lane: str = "") -> list[Line]:
    events = [
        {"type": "response.created", "response": response(identity)},
        {"type": "response.in_progress", "response": response(identity)},
        *(event for item in items for event in item),
        end or {"type": "response.completed", "response": response(identity, "completed")},
    ]
    stream = {"stream_id": lane} if lane else {}
    return [("<", {**event, "sequence_number": number, **stream}) for number, event in enumerate(events)]


def spoken(text: str, place: int = 0) -> list[dict]:
    where = {"output_index": place, "item_id": f"msg_{text}", "content_index": 0}
    item = {"id": f"msg_{text}", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    part = {"type": "output_text", "text": text, "annotations": []}
    pieces = [text[start : start + 3] for start in range(0, len(text), 3)]
    return [
        {"type": "response.output_item.added", "output_index": place, "item": item},
        *({"type": "response.output_text.delta", **where, "delta": piece, "logprobs": []} for piece in pieces),
        {"type": "response.output_text.done", **where, "text": text, "logprobs": []},
        {
            "type": "response.output_item.done", "output_index": place,
            "item": {**item, "status": "completed", "content": [part]},
        },
    ]  # fmt: skip


def called(place: int = 1) -> list[dict]:
    where = {"output_index": place, "item_id": "fc_1"}
    item = {"id": "fc_1", "type": "function_call", "call_id": "call_1", "name": "run", "arguments": ARGUMENTS}
    pieces = [ARGUMENTS[start : start + 3] for start in range(0, len(ARGUMENTS), 3)]
    return [
        {"type": "response.output_item.added", "output_index": place, "item": {**item, "arguments": ""}},
        *({"type": "response.function_call_arguments.delta", **where, "delta": piece} for piece in pieces),
        {"type": "response.function_call_arguments.done", **where, "name": "run", "arguments": ARGUMENTS},
        {"type": "response.output_item.done", "output_index": place, "item": item},
    ]


TWO_TURNS = [
    ask("hi", tools=[{"type": "function", "name": "run"}]),
    *answer("resp_1", spoken("Let me see."), called()),
    ask([{"type": "function_call_output", "call_id": "call_1", "output": "3"}], "resp_1"),
    *answer("resp_2", spoken("3")),
]
READ = [
    ("turn_started", "", ""),
    ("tool_declared", "run", ""),
    ("user_turn", "Be brief.", ""),
    ("user_turn", "hi", ""),
    ("assistant_text", "Let me see.", ""),
    ("tool_call_started", "run", "call_1"),
    ("code", CODE, "call_1"),
    ("code_done", DIGEST, "call_1"),
    ("turn_ended", "tool_calls", ""),
    ("turn_started", "", ""),
    ("tool_result", "3", "call_1"),
    ("assistant_text", "3", ""),
    ("turn_ended", "stop", ""),
]


def play(lines: list[Line], headers: dict | None = None, failures: int = 0) -> list[dict]:
    sent: list[dict] = []
    conversations = Conversations(sent.append)
    socket = ResponsesSocket(
        conversations, {"X-Session-ID": "s"} if headers is None else headers, "openai", "/v1/responses"
    )
    for who, message in lines:
        (socket.from_client if who == ">" else socket.from_server)(json.dumps(message), 1.0)
    socket.end(2.0)
    assert conversations.failures == failures
    return sent


def merged(events: list[dict]) -> list[tuple]:
    """The events with neighbouring deltas joined, as (kind, text or digest or name, call)."""
    out: list[tuple] = []
    for event in events:
        text = event.get("text") or event.get("digest") or event.get("name", "")
        if out and out[-1][0] == event["kind"] and event["kind"] in ("assistant_text", "code"):
            out[-1] = (event["kind"], out[-1][1] + text, event.get("call", ""))
        else:
            out.append((event["kind"], text, event.get("call", "")))
    return out


def test_the_messages_of_these_tests_are_what_the_official_client_takes() -> None:
    adapter: TypeAdapter = TypeAdapter(documented.ResponsesServerEvent)
    for who, message in TWO_TURNS:
        if who == "<":
            adapter.validate_python(message)


def test_turns_follow_each_other_on_one_connection() -> None:
    events = play(TWO_TURNS)
    assert merged(events) == READ
    assert {(event["session"], event["at"]) for event in events} == {("s", 1.0)}
    assert (events[0]["model"], events[0]["provider"]) == ("gpt-5", "openai")


def test_code_is_told_piece_by_piece_before_its_call_is_whole() -> None:
    done = next(
        n for n, (_, message) in enumerate(TWO_TURNS) if message["type"] == "response.function_call_arguments.done"
    )
    events = play(TWO_TURNS[:done])
    assert sum(event["kind"] == "code" for event in events) > 5
    assert merged(events)[-2:] == [("code_done", DIGEST, "call_1"), ("turn_ended", "cut", "")]


def test_a_connection_that_breaks_anywhere_ends_each_turn_once() -> None:
    for cut in range(len(TWO_TURNS)):
        kinds = [event["kind"] for event in play(TWO_TURNS[:cut])]
        assert kinds.count("turn_started") == kinds.count("turn_ended")


def test_what_a_connection_says_without_naming_a_session_is_one_conversation() -> None:
    assert len({event["session"] for event in play(TWO_TURNS, headers={})}) == 1


def test_lanes_are_told_apart_and_each_answers_in_order() -> None:
    a, b, c = (
        answer("resp_a", called(0), lane="a"),
        answer("resp_b", spoken("bee"), lane="b"),
        answer("resp_c", lane="a"),
    )
    asked = [ask("one", stream_id="a"), ask("two", stream_id="b"), ask("three", stream_id="a", previous="resp_0")]
    mixed = [line for pair in zip(a[:6], b[:6], strict=True) for line in pair] + a[6:] + b[6:]
    events = play([*asked, *mixed, *c])
    assert "".join(event["text"] for event in events if event["kind"] == "code") == CODE
    assert "".join(event["text"] for event in events if event["kind"] == "assistant_text") == "bee"
    assert [event["text"] for event in events if event["kind"] == "turn_ended"] == ["tool_calls", "stop", "stop"]


def test_a_steered_answer_is_followed_by_one_that_no_request_asked_for() -> None:
    steered = {
        "type": "response.incomplete",
        "response": response("resp_1", "incomplete", incomplete_details={"reason": "steered"}),
    }
    successor = answer("resp_2", spoken("Polars"))
    successor[0][1]["response"]["previous_response_id"] = "resp_1"
    first = answer("resp_1", spoken("Pandas"), end=steered)
    steer = (">", {"type": "response.steer", "previous_response_id": "resp_1", "input": "No, polars!"})
    accepted = ("<", {"type": "response.steer.accepted", "steer": {"id": "st", "previous_response_id": "resp_1"}})
    events = play([ask("hi"), *first[:-1], steer, accepted, first[-1], *successor], headers={})
    assert merged(events)[3:] == [
        ("assistant_text", "Pandas", ""),
        ("user_turn", "No, polars!", ""),
        ("turn_ended", "steered", ""),
        ("turn_started", "", ""),
        ("assistant_text", "Polars", ""),
        ("turn_ended", "stop", ""),
    ]
    assert len({event["session"] for event in events}) == 1


def test_a_refused_request_ends_its_turn_and_the_next_is_answered() -> None:
    error = {
        "type": "error", "status": 400,
        "error": {"type": "invalid_request_error", "code": "previous_response_not_found", "message": "m"},
    }  # fmt: skip
    lines = [ask("hi", "resp_0"), ("<", error), ask("hi"), *answer("resp_1", spoken("Yes"))]
    ended = [event["text"] for event in play(lines) if event["kind"] == "turn_ended"]
    assert ended == ["error", "stop"]
    failed = ("<", {"type": "response.failed", "response": response("resp_1", "failed")})
    lines = [
        ask("hi"),
        ask("hi", "resp_0"),
        *answer("resp_1")[:2],
        ("<", error),
        failed,
        *answer("resp_2", spoken("Yes")),
    ]
    ended = [event["text"] for event in play(lines) if event["kind"] == "turn_ended"]
    assert ended == ["error", "stop"]


def test_an_answer_that_turns_unreadable_does_not_spoil_the_next() -> None:
    broken = answer("resp_1", spoken("Let me see."))
    broken[4] = ("<", {**broken[4][1], "item_id": [], "output_index": {}, "item": 7})
    ending_lost = answer("resp_2", spoken("lost"))[:-1]
    lines = [ask("one"), *broken, ask("two"), *ending_lost, ask("three"), *answer("resp_3", spoken("fine"))]
    events = play(lines, failures=1)
    assert [event["text"] for event in events if event["kind"] == "turn_ended"][1:] == ["cut", "stop"]
    assert merged(events)[-2:] == [("assistant_text", "fine", ""), ("turn_ended", "stop", "")]


# ---------------------------------------------------------------------------------------------- hostile, and large


JUNK = st.sampled_from(
    [None, True, 0, -1, 1e308, "", "x", "\ud800", [], [None], [7], {}, {"id": []}, "response.created"]
)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_messages_with_anything_anywhere_never_raise_and_every_turn_ends(protocols, data) -> None:
    lines = list(TWO_TURNS)
    for _ in range(data.draw(st.integers(1, 4))):
        number = data.draw(st.integers(0, len(lines) - 1))
        who, message = lines[number]
        lines[number] = (who, protocols.replaced(message, data.draw(st.sampled_from(protocols.paths(message))), data.draw(JUNK)))
    sent: list[dict] = []
    socket = ResponsesSocket(Conversations(sent.append), {}, "openai", "/v1/responses")
    for who, message in lines:
        (socket.from_client if who == ">" else socket.from_server)(json.dumps(message), 1.0)
    socket.end(2.0)
    kinds = [event["kind"] for event in sent]
    assert kinds.count("turn_started") == kinds.count("turn_ended")
    for event in sent:
        json.dumps(event, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", '"x"', "\x00", "[" * 100_000, '{"type": {}}', '{"type": "response.created"']
)
def test_what_is_no_message_is_counted_or_ignored(text) -> None:
    sent: list[dict] = []
    socket = ResponsesSocket(Conversations(sent.append), {}, "openai", "/v1/responses")
    socket.from_client(text, 1.0)
    socket.from_server(text, 1.0)
    socket.end(1.0)
    assert sent == []


def test_a_day_of_turns_leaves_nothing() -> None:
    socket = ResponsesSocket(Conversations(lambda event: None), {"X-Session-ID": "s"}, "openai", "/v1/responses")
    texts = [(who, json.dumps(message)) for who, message in TWO_TURNS]

    def feed(times: int) -> None:
        for _ in range(times):
            for who, text in texts:
                (socket.from_client if who == ">" else socket.from_server)(text, 1.0)
        gc.collect()

    tracemalloc.start()
    try:
        feed(20)
        before = tracemalloc.get_traced_memory()[0]
        feed(200)
        assert tracemalloc.get_traced_memory()[0] - before < 50_000
    finally:
        tracemalloc.stop()


def test_whatever_never_ends_is_kept_within_bounds() -> None:
    socket = ResponsesSocket(Conversations(lambda event: None), {}, "openai", "/v1/responses")
    for number in range(1000):
        socket.from_client(json.dumps(ask("hi")[1]), 1.0)
        socket.from_client(json.dumps(ask("hi", stream_id=f"c{number}")[1]), 1.0)
        for _, message in answer(f"resp_{number}", lane=f"s{number}")[:1]:
            socket.from_server(json.dumps(message), 1.0)
    assert sum(len(lane.waiting) + 1 for lane in socket._lanes.values()) <= 256
    assert len(socket._answers) <= 32
