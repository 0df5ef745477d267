"""Anthropic's Messages, requests and answers."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ephemeral.streams.anthropic import Answer, turn
from ephemeral.streams.turn import Reported, mark_of

CODE = 'import numpy as np  # 🐍\nprint("π")'
INPUT = json.dumps({"code": CODE})


def digest(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()


def delta(index: int, kind: str, **fields: str) -> dict:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}}


def start(index: int, **block: object) -> dict:
    return {"type": "content_block_start", "index": index, "content_block": block}


def stop(index: int) -> dict:
    return {"type": "content_block_stop", "index": index}


MESSAGES = [
    {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude",
            "content": [],
            "stop_reason": None,
            "usage": {"input_tokens": 3, "output_tokens": 1},
        },
    },
    start(0, type="thinking", thinking="", signature=""),
    {"type": "ping"},
    delta(0, "thinking_delta", thinking="Hmm."),
    delta(0, "thinking_delta", thinking=" Yes."),
    delta(0, "signature_delta", signature="EqQB"),
    stop(0),
    start(1, type="text", text=""),
    delta(1, "text_delta", text="Let me "),
    delta(1, "text_delta", text="see.\n"),
    stop(1),
    start(2, type="tool_use", id="toolu_1", name="run", input={}),
    delta(2, "input_json_delta", partial_json=""),
    *(delta(2, "input_json_delta", partial_json=INPUT[at : at + 5]) for at in range(0, len(INPUT), 5)),
    stop(2),
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"output_tokens": 9},
    },
    {"type": "message_stop"},
]

WHOLE_TURN = [
    ("reasoning_text", "Hmm. Yes.", ""),
    ("assistant_text", "Let me see.\n", ""),
    ("tool_call_started", "run", "toolu_1"),
    ("code", CODE, "toolu_1"),
    ("code_done", digest(CODE), "toolu_1"),
    ("turn_ended", "tool_calls", ""),
]

DOCUMENT = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "content": [
        {"type": "thinking", "thinking": "Hmm. Yes.", "signature": "EqQB"},
        {"type": "redacted_thinking", "data": "xx"},
        {"type": "text", "text": "Let me see.\n", "citations": None},
        {"type": "tool_use", "id": "toolu_1", "name": "run", "input": {"code": CODE}},
    ],
    "stop_reason": "tool_use",
}


def sse(messages: object) -> bytes:
    return b"".join(
        f"event: {message.get('type') if isinstance(message, dict) else 'x'}\ndata: {json.dumps(message)}\n\n".encode(
            "utf-8", "replace"
        )
        for message in (messages if isinstance(messages, list) else [messages])
    )


STREAM = sse(MESSAGES)


def test_a_streamed_answer_reads_the_same_however_it_is_cut(protocols) -> None:
    assert protocols.read_in_every_way(lambda: Answer(streamed=True), STREAM) == WHOLE_TURN


def test_an_answer_in_one_document_reads_like_a_streamed_one(protocols) -> None:
    whole = json.dumps(DOCUMENT).encode()
    assert protocols.read_in_every_way(lambda: Answer(streamed=False), whole) == WHOLE_TURN


def test_code_comes_while_its_string_is_half_way_even_in_the_middle_of_an_escape(protocols) -> None:
    reader = Answer(streamed=True)
    reader.feed(sse([start(0, type="tool_use", id="t", name="run", input={})]))
    pieces = ['{"co', 'de": "import os\\', "nx = 1", "\\ud83d", "\\udc0d", "\\u00", 'e9"', "}"]
    read = [reader.feed(sse([delta(0, "input_json_delta", partial_json=piece)])) for piece in pieces]
    assert [[event.get("text", "") for event in events] for events in read] == [
        [], ["import os"], ["\nx = 1"], [], ["🐍"], [], ["é", ""], [],
    ]  # fmt: skip
    assert read[-2][-1] == {"kind": "code_done", "call": "t", "digest": digest("import os\nx = 1🐍é")}


def test_code_that_breaks_off_is_not_done(protocols) -> None:
    limit = {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}}
    events = protocols.merged(protocols.read(Answer(streamed=True), sse([*MESSAGES[:18], stop(2), limit])))
    assert [event[0] for event in events[-3:]] == ["tool_call_started", "code", "turn_ended"]
    assert events[-1][1] == "length"


def test_calls_of_the_providers_own_tools_are_calls_too(protocols) -> None:
    blocks = [
        start(0, type="server_tool_use", id="srv_1", name="code_execution", input={}),
        delta(0, "input_json_delta", partial_json='{"code": "print(1)"}'),
        stop(0),
        start(1, type="code_execution_tool_result", tool_use_id="srv_1", content={"stdout": "1\n"}),
        stop(1),
        start(2, type="mcp_tool_use", id="mcp_1", name="run", server_name="s", input={"code": "2"}),
        stop(2),
        start(3, type="tool_use", id="t", name="bash", input={}),
        delta(3, "input_json_delta", partial_json='{"command": "pip install rich", "restart": false}'),
        stop(3),
    ]
    assert [event[:3] for event in protocols.merged(protocols.read(Answer(streamed=True), sse(blocks)))] == [
        ("tool_call_started", "code_execution", "srv_1"),
        ("code", "print(1)", "srv_1"),
        ("code_done", digest("print(1)"), "srv_1"),
        ("tool_call_started", "run", "mcp_1"),
        ("code", "2", "mcp_1"),
        ("code_done", digest("2"), "mcp_1"),
        ("tool_call_started", "bash", "t"),
        ("code", "pip install rich", "t"),
        ("code_done", digest("pip install rich"), "t"),
        ("turn_ended", "cut", ""),
    ]


@pytest.mark.parametrize(
    ("name", "arguments", "code"),
    [
        ("str_replace_based_edit_tool", {"command": "create", "path": "a.py", "file_text": "import a"}, ["import a"]),
        ("str_replace_based_edit_tool", {"command": "str_replace", "old_str": "x", "new_str": "y"}, ["y"]),
        ("text_editor_code_execution", {"command": "view", "path": "/"}, []),
        ("memory", {"command": "create", "path": "/memories/n", "file_text": "buy milk"}, []),
        ("write_file", {"file_text": "import b"}, ["import b"]),
    ],
)
def test_what_an_editor_writes_is_code_and_its_command_is_not(protocols, name, arguments, code) -> None:
    document = {"content": [{"type": "tool_use", "id": "t", "name": name, "input": arguments}]}
    events = protocols.read(Answer(streamed=False), json.dumps(document).encode())
    assert [event["text"] for event in events if event["kind"] == "code"] == code


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("end_turn", "stop"), ("stop_sequence", "stop"), ("max_tokens", "length"), ("refusal", "content_filter"),
        ("pause_turn", "pause_turn"),
    ],
)  # fmt: skip
def test_why_it_ended_is_said_in_the_words_of_all_protocols(protocols, reason, word) -> None:
    messages = [{"type": "message_delta", "delta": {"stop_reason": reason}}, {"type": "message_stop"}]
    assert protocols.read(Answer(streamed=True), sse(messages)) == [{"kind": "turn_ended", "text": word}]
    assert protocols.read(Answer(streamed=False), json.dumps({"stop_reason": reason}).encode())[-1]["text"] == word


def test_an_error_in_the_stream_ends_the_turn(protocols) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    events = protocols.merged(protocols.read(Answer(streamed=True), sse([*MESSAGES[:9], error, *MESSAGES[9:]])))
    assert events == [WHOLE_TURN[0], ("assistant_text", "Let me ", ""), ("turn_ended", "error", "")]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_wrong_types_anywhere_never_raise_and_the_turn_still_ends_once(protocols, data) -> None:
    protocols.survives(Answer(streamed=True), sse(protocols.spoiled(data, MESSAGES)))
    protocols.survives(Answer(streamed=False), json.dumps(protocols.spoiled(data, DOCUMENT)).encode())


# --------------------------------------------------------------------------------------------------------- requests


def test_messages_of_every_shape_are_read() -> None:
    body = {
        "model": "claude",
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2; cch=a1b2c;"},
            {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
        ],
        "tools": [
            {"name": "run", "input_schema": {}},
            {"type": "bash_20250124", "name": "bash"},
            {"type": "code_execution_20260521", "name": "code_execution"},
            {"type": "mcp_toolset", "mcp_server_name": "s"},
            7,
        ],
        "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "run", "input": {}}]},
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "toolu_1", "content": "3"},
                    {
                        "type": "tool_result",
                        "tool_use_id": "toolu_2",
                        "content": [{"type": "text", "text": "4"}, {"type": "image", "source": {}}],
                        "is_error": True,
                    },
                    {"type": "document", "title": "sales.csv", "source": {"type": "file", "file_id": "f"}},
                    {"type": "image", "source": {"type": "base64", "data": "AA=="}},
                    {"type": "text", "text": "go on"},
                    None,
                ],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_3"}]},
            {"role": "system", "content": "Be kind."},
            {"role": "assistant", "content": "ok"},
            7,
        ],
    }
    assert [tuple(event.values()) for event in Reported().events("s", turn(body))] == [
        ("turn_started", "claude"),
        ("tool_declared", "run"),
        ("tool_declared", "bash"),
        ("tool_declared", "code_execution"),
        ("user_turn", "system", "Be brief."),
        ("user_turn", "user", "hi"),
        ("tool_result", "toolu_1", "3"),
        ("tool_result", "toolu_2", "4"),
        ("user_turn", "user", "sales.csv\ngo on"),
        ("tool_result", "toolu_3", ""),
        ("user_turn", "system", "Be kind."),
    ]
    assert turn({"system": "Hi.", "messages": []}).messages[0].text == "Hi."


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1/projects/p/locations/l/publishers/anthropic/models/claude-x%401:streamRawPredict?alt=sse", "claude-x@1"),
        ("/model/us.anthropic.claude-x-v1%3A0/invoke", "us.anthropic.claude-x-v1:0"),
        ("/model/us.anthropic.claude-x-v1:0/invoke", "us.anthropic.claude-x-v1:0"),
        ("/v1/messages", ""),
    ],
)
def test_the_model_may_stand_in_the_path(path, model) -> None:
    assert turn({}, path).model == model
    assert turn({"model": "m"}, path).model == "m"


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_request_is_too_strange(protocols, data) -> None:
    body = {"system": [{"type": "text", "text": "s"}], "tools": [{"name": "x"}], "messages": [
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "x"}]}]},
        {"role": "assistant", "content": DOCUMENT["content"]},
    ]}  # fmt: skip
    Reported().events("s", turn(protocols.spoiled(data, body), "/v1/messages"))


# --------------------------------------------------------------------------------- the answer, in the next request


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(st.text(), max_size=3), tool=st.booleans(), strips=st.booleans(), cut=st.integers(0, 20))
def test_an_answer_is_recognised_in_the_next_requests_history(protocols, texts, tool, strips, cut) -> None:
    blocks = [{"type": "text", "text": text} for text in texts]
    calls = [{"type": "tool_use", "id": "toolu_9", "name": "run", "input": {"code": "1"}}] if tool else []
    reader = Answer(streamed=True)
    messages = []
    for index, block in enumerate(blocks):
        messages.append(start(index, type="text", text=""))
        messages += [delta(index, "text_delta", text=part) for part in (block["text"][:cut], block["text"][cut:])]
    protocols.read(reader, sse([*messages, *(start(9, **call) for call in calls), {"type": "message_stop"}]))
    whole = Answer(streamed=False)
    protocols.read(whole, json.dumps({"content": blocks + calls}).encode())
    assert reader.marks == whole.marks
    text = "".join(texts)
    histories = [blocks + calls, [{"type": "text", "text": text.strip() if strips else text}, *calls]]
    for content in histories:
        (said,) = turn({"messages": [{"role": "assistant", "content": content}]}).messages
        assert list(said.marks) == whole.marks
    (said,) = turn({"messages": [{"role": "assistant", "content": text}]}).messages
    assert said.marks == ((mark_of(text),) if text.strip() else ())


def test_the_session_is_found_again(protocols) -> None:
    hi = {"role": "user", "content": "hi"}
    other = sse(
        [{"type": "message_start", "message": {"id": "msg_2"}}, start(0, type="text", text="No."), *MESSAGES[-2:]]
    )
    for content in (DOCUMENT["content"], "Let me see.", DOCUMENT["content"][-1:]):
        following = {"messages": [hi, {"role": "assistant", "content": content}, {"role": "user", "content": "and?"}]}
        protocols.finds_its_session(
            "/anthropic/v1/messages", "text/event-stream", {"messages": [hi]}, (STREAM, other), following
        )
