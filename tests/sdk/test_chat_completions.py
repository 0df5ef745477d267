"""OpenAI's Chat Completions, requests and answers, tried with their bytes cut at every place they can be cut."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import time

import pytest

from ephemeral.streams import apis
from ephemeral.streams.chat_completions import Answer, turn
from ephemeral.streams.conversation import Conversations
from ephemeral.streams.turn import Reported, mark_of

# ------------------------------------------------------------------------------------------------ chat completions


def chunk(delta: dict, finish: str | None = None, index: int = 0) -> bytes:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "c1", "choices": [choice]}).encode() + b"\n\n"


def tool(index: int | None = 0, arguments: str | None = None, call: str = "", name: str = "") -> dict:
    piece: dict = {} if index is None else {"index": index}
    if call:
        piece["id"] = call
    piece["function"] = {**({"name": name} if name else {}), **({} if arguments is None else {"arguments": arguments})}
    return {"tool_calls": [piece]}


DONE = b"data: [DONE]\n\n"
CODE = 'import numpy as np  # 🐍\nprint("π")'
ARGUMENTS = json.dumps({"code": CODE})
STREAM = b"".join(
    [
        chunk({"role": "assistant", "content": "", "reasoning_content": None}),
        chunk({"reasoning": "Hmm."}),
        chunk({"reasoning_content": " Yes."}),
        b": keep-alive\n\n",
        chunk({"content": "Let me "}),
        chunk({"content": "see."}),
        chunk(tool(call="call_1", name="run", arguments="")),
        *(chunk(tool(arguments=ARGUMENTS[start : start + 3])) for start in range(0, len(ARGUMENTS), 3)),
        chunk({}, "tool_calls"),
        b'data: {"id": "c1", "choices": [], "usage": {"total_tokens": 3}, "obfuscation": "xx"}\n\n',
        DONE,
    ]
)


def merged(events: list[dict]) -> list[tuple]:
    """The events with neighbouring deltas joined, as (kind, text or digest or name, call)."""
    out: list[tuple] = []
    for event in events:
        text = event.get("text") or event.get("digest") or event.get("name", "")
        if out and out[-1][0] == event["kind"] and event["kind"] in ("assistant_text", "reasoning_text", "code"):
            out[-1] = (event["kind"], out[-1][1] + text, event.get("call", ""))
        else:
            out.append((event["kind"], text, event.get("call", "")))
    return out


WHOLE_TURN = [
    ("reasoning_text", "Hmm. Yes.", ""),
    ("assistant_text", "Let me see.", ""),
    ("tool_call_started", "run", "call_1"),
    ("code", CODE, "call_1"),
    ("code_done", hashlib.sha256(CODE.encode()).hexdigest(), "call_1"),
    ("turn_ended", "tool_calls", ""),
]


def answer(data: bytes, *cuts: int, cut: bool = False) -> list[dict]:
    reader = Answer(streamed=True)
    edges = [0, *cuts, len(data)]
    events = [event for start, end in itertools.pairwise(edges) for event in reader.feed(data[start:end])]
    return [*events, *reader.close(cut)]


def test_a_streamed_answer_reads_the_same_however_it_is_cut() -> None:
    for cut in range(len(STREAM)):
        assert merged(answer(STREAM, cut)) == WHOLE_TURN
    assert merged(answer(STREAM, *range(1, len(STREAM)))) == WHOLE_TURN


def test_code_is_done_before_the_finish_chunk() -> None:
    before_finish = STREAM[: STREAM.index(b'"tool_calls"}')]
    reader = Answer(streamed=True)
    assert reader.feed(before_finish)[-1]["kind"] == "code_done"
    assert reader.calls == ["call_1"]
    assert reader.marks == ["c1", "call_1", mark_of("Let me see.")]


def test_what_follows_inline_reasoning_is_known_by_itself_too() -> None:
    text = "<think>Hm.</think>Wait.</think>\n\nUse pandas.\n"
    stream = b"".join(chunk({"content": text[start : start + 5]}) for start in range(0, len(text), 5)) + DONE
    for size in (1, 7, len(stream)):
        reader = Answer(streamed=True)
        for start in range(0, len(stream), size):
            reader.feed(stream[start : start + size])
        assert reader.marks == ["c1", mark_of(text), mark_of("Use pandas.")]


@pytest.mark.parametrize("cut", [False, True])
def test_an_answer_that_breaks_off_ends_the_turn_as_cut_without_finishing_its_code(cut) -> None:
    events = answer(STREAM[: len(STREAM) * 2 // 3], cut=cut)
    assert events[-1] == {"kind": "turn_ended", "text": "cut"}
    assert "code_done" not in [event["kind"] for event in events]


def test_an_answer_in_one_document_reads_like_a_streamed_one() -> None:
    message = {
        "content": "Let me see.",
        "reasoning": "Hmm. Yes.",
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "run", "arguments": ARGUMENTS}}],
    }
    whole = json.dumps(
        {"id": "c1", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    ).encode()
    for cut in range(len(whole)):
        reader = Answer(streamed=False)
        assert reader.feed(whole[:cut]) + reader.feed(whole[cut:]) == []
        assert merged(reader.close()) == WHOLE_TURN


def codes(*chunks: bytes) -> list[tuple]:
    return [event[1:] for event in merged(answer(b"".join(chunks))) if event[0] == "code"]


def test_calls_are_told_apart_by_index_and_where_that_is_missing_by_id() -> None:
    a, b = '{"code": "a"}', '{"code": "b"}'
    interleaved = [tool(0, "", "x", "run"), tool(1, "", "y", "run"), tool(0, a), tool(1, b)]
    assert codes(*map(chunk, interleaved)) == [("a", "x"), ("b", "y")]
    same_index = [tool(0, a, "x", "run"), tool(0, b, "y", "run")]
    assert codes(*map(chunk, same_index)) == [("a", "x"), ("b", "y")]
    no_index = [tool(None, a[:5], "x", "run"), tool(None, a[5:]), tool(None, b, "y", "run")]
    assert codes(*map(chunk, no_index)) == [("a", "x"), ("b", "y")]
    id_repeated = [tool(0, a[:5], "x", "run"), tool(0, a[5:], "x", "run")]
    assert codes(*map(chunk, id_repeated)) == [("a", "x")]


def test_the_older_function_call_and_raw_custom_tools_are_read_too() -> None:
    legacy = [{"function_call": {"name": "run", "arguments": '{"co'}}, {"function_call": {"arguments": 'de": "a"}'}}]
    assert codes(*map(chunk, legacy)) == [("a", "c1:0")]
    custom = [
        {"tool_calls": [{"index": 0, "id": "x", "type": "custom", "custom": {"name": "py", "input": "a = "}}]},
        {"tool_calls": [{"index": 0, "custom": {"input": "1"}}]},
    ]
    events = merged(answer(b"".join([*map(chunk, custom), chunk({}, "tool_calls"), DONE])))
    assert events[-3:-1] == [("code", "a = 1", "x"), ("code_done", hashlib.sha256(b"a = 1").hexdigest(), "x")]


def test_a_character_cut_in_half_between_two_chunks_is_whole_again() -> None:
    halves = [chunk({"content": "\ud83d"}), chunk({"content": "\ude00"}), chunk({}, "stop"), DONE]
    assert merged(answer(b"".join(halves))) == [("assistant_text", "😀", ""), ("turn_ended", "stop", "")]


HOSTILE = [
    b"data: {\n\n",
    b"data: []\n\n",
    b"data: 7\n\n",
    b'data: {"choices": 7}\n\n',
    b'data: {"choices": [7]}\n\n',
    b'data: {"choices": [{"delta": 7}]}\n\n',
    b'data: {"choices": [{"delta": {"tool_calls": [7]}}]}\n\n',
    b'data: {"choices": [{"index": [], "delta": {"tool_calls": [{"index": {}, "function": {"arguments": "{"}}]}}]}\n\n',
    b'data: {"choices": [{"delta": {"tool_calls": [{"id": 7, "function": {"name": 8, "arguments": 9}}]}}]}\n\n',
    b'data: {"id": {}, "choices": [{"delta": {"content": 7, "reasoning": []}, "finish_reason": {}}]}\n\n',
    b"data: " + b"[" * 100_000 + b"\n\n",
    b'data: {"error": {"message": "overloaded"}}\n\n',
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_a_hostile_piece_never_raises_and_the_turn_still_ends_once(piece) -> None:
    for streamed, data in ((True, chunk({"content": "ok"}) + piece + DONE), (False, piece.removeprefix(b"data: "))):
        reader = Answer(streamed)
        events = reader.feed(data) + reader.close()
        assert [event["kind"] for event in events].count("turn_ended") == 1
        assert reader.close() == []
        for event in events:
            json.dumps(event).encode()


def test_calls_without_number_stay_bounded() -> None:
    reader = Answer(streamed=True)
    for number in range(2000):
        reader.feed(chunk(tool(number, "", f"call_{number}", "run")))
    assert len(reader.calls) <= 256


# --------------------------------------------------------------------------------------------------------- requests


def kinds(events: list[dict]) -> list[str]:
    return [event["kind"] for event in events]


def test_a_request_tells_only_what_the_session_has_not_said() -> None:
    reader = Reported()
    yes = {"role": "user", "content": "yes"}
    body = {"model": "m", "messages": [yes], "tools": [{"type": "function", "function": {"name": "run"}}]}
    assert reader.events("s", turn(body)) == [
        {"kind": "turn_started", "model": "m"},
        {"kind": "tool_declared", "name": "run"},
        {"kind": "user_turn", "role": "user", "text": "yes"},
    ]
    assert kinds(reader.events("s", turn(body))) == ["turn_started"]
    longer = {**body, "messages": [yes, {"role": "assistant", "content": "Sure?"}, yes]}
    assert kinds(reader.events("s", turn(longer))) == ["turn_started", "user_turn"]
    assert kinds(reader.events("s", turn(longer))) == ["turn_started"]
    assert kinds(reader.events("another", turn(body))) == ["turn_started", "tool_declared", "user_turn"]


def test_messages_of_every_shape_are_read() -> None:
    messages = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "See"},
                {"type": "file", "file": {"filename": "a.csv"}},
                {"type": "image_url"},
            ],
        },
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "3"}]},
        {"role": "function", "name": "run", "content": "4"},
        {"role": "user", "content": None},
        None,
        7,
    ]
    tools = [{"custom": {"name": "c"}}, {"type": "x"}]
    events = Reported().events("s", turn({"messages": messages, "functions": [{"name": "run"}], "tools": tools}))
    assert [tuple(event.values()) for event in events] == [
        ("turn_started", ""),
        ("tool_declared", "c"),
        ("tool_declared", "run"),
        ("user_turn", "system", "Be brief."),
        ("user_turn", "user", "See\na.csv"),
        ("tool_result", "call_1", "3"),
        ("tool_result", "run", "4"),
    ]


def test_the_memory_of_sessions_is_bounded() -> None:
    reader = Reported(sessions=10)
    for number in range(100):
        reader.events(f"s{number}", turn({"messages": [{"role": "user", "content": str(number)}]}))
    assert len(reader._sessions) == 10


# ----------------------------------------------------------------------------------------------------- conversation


CHAT = apis.find("POST", "/v1/chat/completions")
assert CHAT is not None


def test_an_exchange_reports_finished_events() -> None:
    sent: list[dict] = []
    conversations = Conversations(sent.append)
    request = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    exchange = conversations.begin(
        CHAT, "/v1/chat/completions", {"X-Ephemeral-Session-Id": "s", "User-Agent": "probe/1.0"}, json.dumps(request).encode()
    )
    exchange.answer(200, {"Content-Type": "text/event-stream; charset=utf-8", "Content-Encoding": "gzip"})
    exchange.feed(gzip.compress(STREAM))
    exchange.end()
    exchange.end(cut=True)
    assert merged(sent) == [("turn_started", "", ""), ("user_turn", "hi", ""), *WHOLE_TURN]
    assert {(event["session"], event["app"]) for event in sent} == {("s", "probe")}
    assert all(abs(event["at"] - time.time()) < 3600 for event in sent)
    assert conversations.failures == 0


def test_what_cannot_be_read_is_counted_and_silent() -> None:
    sent: list[dict] = []
    conversations = Conversations(sent.append)
    for headers, body in (
        ({}, b"{"),
        ({}, b"[]"),
        ({}, b"\xff"),
        ({"content-encoding": "br"}, b"{}"),
        ({"content-encoding": "gzip"}, b"{}"),
        ({}, b"[" * 100_000),
    ):
        assert conversations.begin(CHAT, "", headers, body) is None
    assert (sent, conversations.failures) == ([], 6)
    exchange = conversations.begin(CHAT, "", {}, b"{}")
    exchange.answer(200, {"content-encoding": "gzip"})
    exchange.feed(b"no gzip")
    exchange.feed(b"at all")
    exchange.end()
    assert kinds(sent) == ["turn_started", "turn_ended"]
    assert conversations.failures == 7
