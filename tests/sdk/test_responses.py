"""OpenAI's Responses, requests and answers, as the API reference and the official client's types describe them."""

from __future__ import annotations

import hashlib
import itertools
import json

import openai.types.responses as documented
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from ephemeral.streams import apis
from ephemeral.streams.conversation import Conversations
from ephemeral.streams.responses import Answer, turn
from ephemeral.streams.turn import Message, Reported, mark_of

CODE = 'import numpy as np  # 🐍\nprint("π")'
ARGUMENTS = json.dumps({"code": CODE})
DIGEST = hashlib.sha256(CODE.encode()).hexdigest()


def pieces(text: str, length: int = 3) -> list[str]:
    return [text[start : start + length] for start in range(0, len(text), length)]


def response(status: str = "in_progress", output: list | None = None, **more: object) -> dict:
    base = {
        "id": "resp_1", "object": "response", "created_at": 1, "status": status, "error": None, "incomplete_details": None,
        "instructions": None, "metadata": {}, "model": "gpt-5", "output": output or [], "parallel_tool_calls": True,
        "temperature": 1.0, "tool_choice": "auto", "tools": [], "top_p": 1.0, "usage": None,
    }  # fmt: skip
    return {**base, **more}


REASONING = {
    "id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "Hmm. Yes."}], "status": "completed",
}  # fmt: skip
MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "status": "completed",
    "content": [{"type": "output_text", "text": "Let me see.", "annotations": []}],
}  # fmt: skip
CALL = {
    "id": "fc_1", "type": "function_call", "call_id": "call_1", "name": "run", "arguments": ARGUMENTS, "status": "completed",
}  # fmt: skip
OUTPUT = [REASONING, MESSAGE, CALL]


def item(place: int, whole: dict, started: dict, *deltas: dict) -> list[dict]:
    """The events of one item, in the documented order."""
    return [
        {
            "type": "response.output_item.added",
            "output_index": place,
            "item": {**whole, "status": "in_progress", **started},
        },
        *({"output_index": place, "item_id": whole["id"], **delta} for delta in deltas),
        {"type": "response.output_item.done", "output_index": place, "item": whole},
    ]


def deltas(kind: str, text: str, length: int = 3, **more: object) -> list[dict]:
    return [{"type": kind, "delta": piece, **more} for piece in pieces(text, length)]


def stream(*items: list[dict], end: dict | None = None) -> list[dict]:
    """A whole stream: its events numbered."""
    events = [
        {"type": "response.created", "response": response()},
        {"type": "response.in_progress", "response": response()},
        *itertools.chain(*items),
        end or {"type": "response.completed", "response": response("completed", OUTPUT)},
    ]
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


THINKING = item(
    0, REASONING, {"summary": []},
    {"type": "response.reasoning_summary_part.added", "summary_index": 0, "part": {"type": "summary_text", "text": ""}},
    *deltas("response.reasoning_summary_text.delta", "Hmm. Yes.", summary_index=0),
    {"type": "response.reasoning_summary_text.done", "summary_index": 0, "text": "Hmm. Yes."},
    {
        "type": "response.reasoning_summary_part.done", "summary_index": 0,
        "part": {"type": "summary_text", "text": "Hmm. Yes."},
    },
)  # fmt: skip
SPEAKING = item(
    1, MESSAGE, {"content": []},
    {
        "type": "response.content_part.added", "content_index": 0,
        "part": {"type": "output_text", "text": "", "annotations": []},
    },
    *deltas("response.output_text.delta", "Let me see.", 4, content_index=0, logprobs=[], obfuscation="xx"),
    {"type": "response.output_text.done", "content_index": 0, "text": "Let me see.", "logprobs": []},
    {"type": "response.content_part.done", "content_index": 0, "part": MESSAGE["content"][0]},
)  # fmt: skip
CALLING = item(
    2, CALL, {"arguments": ""},
    *deltas("response.function_call_arguments.delta", ARGUMENTS, 9),
    {"type": "response.function_call_arguments.done", "name": "run", "arguments": ARGUMENTS},
)  # fmt: skip
WHOLE = stream(THINKING, SPEAKING, CALLING)
WHOLE_TURN = [
    ("reasoning_text", "Hmm. Yes.", ""),
    ("assistant_text", "Let me see.", ""),
    ("tool_call_started", "run", "call_1"),
    ("code", CODE, "call_1"),
    ("code_done", DIGEST, "call_1"),
    ("turn_ended", "tool_calls", ""),
]


def sse(events: list[dict]) -> bytes:
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)


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


def read(data: bytes, *cuts: int, cut: bool = False) -> list[dict]:
    reader = Answer(streamed=True)
    edges = [0, *cuts, len(data)]
    events = [event for start, end in itertools.pairwise(edges) for event in reader.feed(data[start:end])]
    return [*events, *reader.close(cut)]


def told(*items: list[dict], end: dict | None = None) -> list[tuple]:
    return merged(read(sse(stream(*items, end=end))))


# -------------------------------------------------------------------------------------------------------- answers


def test_the_streams_of_these_tests_are_what_the_official_client_takes() -> None:
    adapter: TypeAdapter = TypeAdapter(documented.ResponseStreamEvent)
    for event in WHOLE:
        adapter.validate_python(event)


def test_a_streamed_answer_reads_the_same_however_it_is_cut() -> None:
    lean = {"response": {"id": "resp_1", "status": "completed"}}  # what is read of it: the shorter, the fewer cuts
    data = sse([{**event, **lean} if "response" in event else event for event in WHOLE])
    for cut in range(len(data)):
        assert merged(read(data, cut)) == WHOLE_TURN
    assert merged(read(data, *range(1, len(data)))) == WHOLE_TURN


def test_code_is_told_while_it_grows_and_done_before_its_call_is() -> None:
    reader = Answer(streamed=True)
    data = sse(WHOLE)
    half = data.index(b"response.function_call_arguments.done") - len(b"event: ")
    events = reader.feed(data[:half])
    assert sum(event["kind"] == "code" for event in events) > 5
    assert events[-1] == {"kind": "code_done", "call": "call_1", "digest": DIGEST}
    assert set(reader.marks) == {"resp_1", "msg_1", "fc_1", "call_1", mark_of("Let me see.")}


@pytest.mark.parametrize("cut", [False, True])
def test_an_answer_that_breaks_off_ends_the_turn_as_cut_without_finishing_its_code(cut) -> None:
    data = sse(WHOLE)
    events = read(data[: data.index(b"function_call_arguments.delta") + 1200], cut=cut)
    assert events[-1] == {"kind": "turn_ended", "text": "cut"}
    assert "code" in [event["kind"] for event in events]
    assert "code_done" not in [event["kind"] for event in events]


def test_an_answer_in_one_document_reads_like_a_streamed_one() -> None:
    whole = json.dumps(response("completed", OUTPUT)).encode()
    for cut in range(len(whole)):
        reader = Answer(streamed=False)
        assert reader.feed(whole[:cut]) + reader.feed(whole[cut:]) == []
        assert merged(reader.close()) == WHOLE_TURN
    assert set(reader.marks) == {"resp_1", "msg_1", "fc_1", "call_1", mark_of("Let me see.")}


def test_what_was_not_streamed_is_read_when_its_item_is_whole_and_only_once() -> None:
    added_and_done = [
        [event for event in part if "output_item" in event["type"]] for part in (THINKING, SPEAKING, CALLING)
    ]
    assert told(*added_and_done) == WHOLE_TURN
    done = [[event for event in part if event["type"].endswith("item.done")] for part in (THINKING, SPEAKING, CALLING)]
    assert told(*done) == WHOLE_TURN
    only_deltas = [
        [event for event in part if not event["type"].endswith(".done")] for part in (THINKING, SPEAKING, CALLING)
    ]
    assert told(*only_deltas) == WHOLE_TURN
    assert told() == WHOLE_TURN  # everything in response.completed
    without_added = [
        [event for event in part if "added" not in event["type"]] for part in (THINKING, SPEAKING, CALLING)
    ]
    assert told(*without_added) == WHOLE_TURN


def test_items_are_told_apart_by_their_place_even_where_their_ids_change() -> None:
    changed = [{**event, "item_id": f"other_{number}"} for number, event in enumerate(CALLING)]
    assert told(THINKING, SPEAKING, changed) == WHOLE_TURN
    no_place = [{key: value for key, value in event.items() if key != "output_index"} for event in CALLING]
    assert told(THINKING, SPEAKING, no_place) == WHOLE_TURN


def test_an_answer_of_several_messages_is_recognised_by_each_of_them() -> None:
    final = {**MESSAGE, "id": "msg_2", "phase": "final_answer", "content": [{"type": "output_text", "text": "Done. "}]}
    reader = Answer(streamed=True)
    reader.feed(sse(stream(SPEAKING, item(3, final, {}))))
    assert {"msg_1", "msg_2", mark_of("Let me see."), mark_of("Done."), mark_of("Let me see.Done.")} <= set(
        reader.marks
    )


def test_parallel_calls_stay_apart() -> None:
    second = {**CALL, "id": "fc_2", "call_id": "call_2", "arguments": '{"code": "b"}'}
    other = item(
        3, second, {"arguments": ""}, *deltas("response.function_call_arguments.delta", second["arguments"], 5)
    )
    mixed = [event for pair in itertools.zip_longest(CALLING, other) for event in pair if event]
    events = read(sse(stream(mixed)))
    code = {
        call: "".join(e["text"] for e in events if e["kind"] == "code" and e["call"] == call)
        for call in ("call_1", "call_2")
    }
    assert code == {"call_1": CODE, "call_2": "b"}


CALLS_OF_EVERY_KIND: list[tuple[dict, list[dict], str, str, str]] = [
    (
        {"id": "ctc_1", "type": "custom_tool_call", "call_id": "call_x", "name": "py", "input": CODE},
        [
            *deltas("response.custom_tool_call_input.delta", CODE),
            {"type": "response.custom_tool_call_input.done", "input": CODE},
        ],
        "py", "call_x", CODE,
    ),
    (
        {
            "id": "mcp_1", "type": "mcp_call", "server_label": "box", "name": "run", "arguments": ARGUMENTS, "output": "3",
            "status": "completed",
        },
        [
            *deltas("response.mcp_call_arguments.delta", ARGUMENTS),
            {"type": "response.mcp_call_arguments.done", "arguments": ARGUMENTS},
        ],
        "run", "mcp_1", CODE,
    ),
    (
        {
            "id": "ci_1", "type": "code_interpreter_call", "code": CODE, "container_id": "c", "outputs": None,
            "status": "completed",
        },
        [
            {"type": "response.code_interpreter_call.in_progress"},
            *deltas("response.code_interpreter_call_code.delta", CODE),
            {"type": "response.code_interpreter_call_code.done", "code": CODE},
            {"type": "response.code_interpreter_call.interpreting"},
        ],
        "code_interpreter", "ci_1", CODE,
    ),
    (
        {
            "id": "sh_1", "type": "shell_call", "call_id": "call_s", "status": "completed",
            "action": {"commands": ["pip install x", "ls"], "timeout_ms": 1, "max_output_length": 1},
        },
        [
            {"type": "response.shell_call_command.added", "command_index": 0, "command": ""},
            *deltas("response.shell_call_command.delta", "pip install x", command_index=0),
            {"type": "response.shell_call_command.done", "command_index": 0, "command": "pip install x"},
            *deltas("response.shell_call_command.delta", "ls", command_index=1),
            {"type": "response.shell_call_command.done", "command_index": 1, "command": "ls"},
        ],
        "shell", "call_s", "pip install x\nls",
    ),
    (
        {
            "id": "lsh_1", "type": "local_shell_call", "call_id": "call_l", "status": "completed",
            "action": {"type": "exec", "command": ["pip", "install", "x"], "env": {}},
        },
        [], "local_shell", "call_l", "pip install x",
    ),
    (
        {
            "id": "mcpr_1", "type": "mcp_approval_request", "server_label": "box", "name": "run", "arguments": ARGUMENTS,
        },
        [], "run", "mcpr_1", CODE,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("whole", "streamed", "name", "call", "code"), CALLS_OF_EVERY_KIND)
def test_calls_of_every_kind_are_read_streamed_and_whole(whole, streamed, name, call, code) -> None:
    expected = [
        ("tool_call_started", name, call),
        ("code", code, call),
        ("code_done", hashlib.sha256(code.encode()).hexdigest(), call),
        ("turn_ended", "tool_calls", ""),
    ]
    end = {"type": "response.completed", "response": response("completed", [whole])}
    began = {key: type(value)() for key, value in whole.items() if key in ("input", "arguments", "code")}
    assert told(item(0, whole, began, *streamed), end=end) == expected
    assert told(item(0, whole, began), end=end) == expected
    assert told(end=end) == expected


def test_calls_without_code_are_announced() -> None:
    search = {
        "id": "ws_1",
        "type": "web_search_call",
        "status": "completed",
        "action": {"type": "search", "query": "x"},
    }
    assert told(item(0, search, {}))[0] == ("tool_call_started", "web_search", "ws_1")


def test_a_refusal_is_text_and_reasoning_may_be_said_in_full() -> None:
    refusal = {**MESSAGE, "content": [{"type": "refusal", "refusal": "No."}]}
    speaking = item(1, refusal, {"content": []}, *deltas("response.refusal.delta", "No.", content_index=0))
    thinking = item(0, REASONING, {"summary": []}, *deltas("response.reasoning_text.delta", "Hm.", content_index=0))
    end = {"type": "response.completed", "response": response("completed")}
    expected = [("reasoning_text", "Hm.", ""), ("assistant_text", "No.", ""), ("turn_ended", "stop", "")]
    assert told(thinking, speaking, end=end) == expected
    assert told(item(1, refusal, {}), end=end) == expected[1:]


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ({"type": "response.completed", "response": response("completed")}, "stop"),
        (
            {
                "type": "response.incomplete",
                "response": response("incomplete", incomplete_details={"reason": "max_output_tokens"}),
            },
            "length",
        ),
        (
            {
                "type": "response.incomplete",
                "response": response("incomplete", incomplete_details={"reason": "content_filter"}),
            },
            "content_filter",
        ),
        ({"type": "response.failed", "response": response("failed", error={"code": "server_error", "message": "m"})}, "error"),
        ({"type": "error", "code": "server_error", "message": "m", "param": None}, "error"),
    ],
)  # fmt: skip
def test_the_end_of_a_turn_says_why(end, reason) -> None:
    assert told(SPEAKING, end=end)[-1] == ("turn_ended", reason, "")
    if "response" in end:
        reader = Answer(streamed=False)
        reader.feed(json.dumps(end["response"]).encode())
        assert reader.close()[-1] == {"kind": "turn_ended", "text": reason}


def test_code_that_was_cut_by_the_limit_is_not_done() -> None:
    cut = {
        "id": "ctc_1",
        "type": "custom_tool_call",
        "call_id": "x",
        "name": "py",
        "input": "impo",
        "status": "incomplete",
    }
    end = {
        "type": "response.incomplete",
        "response": response("incomplete", [cut], incomplete_details={"reason": "max_output_tokens"}),
    }
    began = item(0, cut, {"input": ""}, *deltas("response.custom_tool_call_input.delta", "impo"))
    assert told(began, end=end)[-2:] == [("code", "impo", "x"), ("turn_ended", "length", "")]


def test_a_character_cut_in_half_between_two_events_is_whole_again() -> None:
    halves = [
        {"type": "response.output_text.delta", "output_index": 0, "item_id": "m", "delta": half}
        for half in ("\ud83d", "\ude00")
    ]
    assert told(halves)[0] == ("assistant_text", "😀", "")


# -------------------------------------------------------------------------------------------------- hostile answers


JUNK = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        1e308,
        "",
        "x",
        "\ud800",
        "{",
        [],
        [None],
        [[]],
        [7],
        {},
        {"id": []},
        {"": {}},
        "response.created",
    ]
)


def a_sane_turn(events: list[dict]) -> None:
    assert [event["kind"] for event in events].count("turn_ended") == 1
    for event in events:
        assert all(isinstance(value, str) for value in event.values())
        json.dumps(event, ensure_ascii=False).encode()


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_stream_with_anything_anywhere_never_raises_and_ends_once(protocols, data) -> None:
    events: list = stream(
        THINKING, SPEAKING, CALLING, *(item(n + 3, c[0], {}, *c[1]) for n, c in enumerate(CALLS_OF_EVERY_KIND))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        number = data.draw(st.integers(0, len(events) - 1))
        events[number] = protocols.replaced(events[number], data.draw(st.sampled_from(protocols.paths(events[number]))), data.draw(JUNK))
    reader = Answer(streamed=True)
    text = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    a_sane_turn(reader.feed(text) + reader.close())
    reader = Answer(streamed=True)
    a_sane_turn([out for event in events for out in reader.message(json.dumps(event))] + reader.close())
    whole = response("completed", [*OUTPUT, *(c[0] for c in CALLS_OF_EVERY_KIND)])
    reader = Answer(streamed=False)
    where = data.draw(st.sampled_from(protocols.paths(whole)))
    a_sane_turn(reader.feed(json.dumps(protocols.replaced(whole, where, data.draw(JUNK))).encode()) + reader.close())


def test_items_without_number_stay_bounded() -> None:
    reader = Answer(streamed=True)
    for number in range(20_000):
        text = {"type": "response.output_text.delta", "output_index": number, "delta": "x"}
        call = {
            "type": "response.output_item.added",
            "output_index": -number,
            "item": {**CALL, "call_id": f"c{number}"},
        }
        reader.message(json.dumps(text))
        reader.message(json.dumps(call))
    assert len(reader.calls) <= 256
    assert len(reader._read) <= 4096


# --------------------------------------------------------------------------------------------------------- requests


FULL_REQUEST = {
    "model": "gpt-5",
    "instructions": "Be brief.",
    "previous_response_id": "resp_0",
    "tools": [
        {"type": "function", "name": "run", "parameters": {}},
        {"type": "custom", "name": "py"},
        {"type": "mcp", "server_label": "box", "server_url": "https://x", "allowed_tools": ["run_python"]},
        {"type": "mcp", "server_label": "other", "allowed_tools": {"tool_names": ["a", 7], "read_only": True}},
        {"type": "namespace", "name": "n", "description": "", "tools": [{"type": "function", "name": "inner"}]},
        {"type": "code_interpreter", "container": {"type": "auto"}},
        {"type": "web_search"},
    ],
    "input": [
        {"role": "developer", "content": "Use numpy."},
        {"role": "user", "content": "hi"},
        {
            "type": "message", "role": "user",
            "content": [
                {"type": "input_text", "text": "See"},
                {"type": "input_file", "filename": "a.csv", "file_data": "data:text/csv;base64,eA=="},
                {"type": "input_image", "image_url": "https://x"},
            ],
        },
        REASONING,
        MESSAGE,
        CALL,
        {"type": "function_call_output", "call_id": "call_1", "output": "3"},
        {"id": "ctc_1", "type": "custom_tool_call", "call_id": "call_2", "name": "py", "input": "1"},
        {"type": "custom_tool_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "1"}]},
        {"type": "shell_call_output", "call_id": "call_3", "output": [{"stdout": "a", "stderr": "b", "outcome": {}}]},
        {"type": "item_reference", "id": "msg_9"},
        {"id": "msg_8"},
        {"type": "additional_tools", "role": "developer", "tools": [{"type": "function", "name": "late"}]},
        {"role": "assistant", "content": "Sure?"},
    ],
}  # fmt: skip


def test_a_request_of_every_shape_is_read() -> None:
    said = turn(FULL_REQUEST, "/v1/responses")
    assert (said.model, said.previous) == ("gpt-5", "resp_0")
    assert said.tools == (
        "run", "py", "box", "run_python", "other", "a", "inner", "code_interpreter", "web_search", "late",
    )  # fmt: skip
    assert said.messages == (
        Message("system", "Be brief."),
        Message("system", "Use numpy."),
        Message("user", "hi"),
        Message("user", "See\na.csv"),
        Message("assistant", marks=("msg_1", mark_of("Let me see."))),
        Message("assistant", marks=("call_1", "fc_1")),
        Message("tool", "3", "call_1"),
        Message("assistant", marks=("call_2", "ctc_1")),
        Message("tool", "1", "call_2"),
        Message("tool", "a\nb", "call_3"),
        Message("assistant", marks=("msg_9",)),
        Message("assistant", marks=("msg_8",)),
        Message("assistant", marks=(mark_of("Sure?"),)),
    )


def test_the_input_may_be_a_string_or_the_variables_of_a_stored_prompt() -> None:
    assert turn({"input": "hi"}).messages == (Message("user", "hi"),)
    variables = {"what": "plot", "file": {"type": "input_file", "filename": "a.csv"}}
    assert turn({"prompt": {"id": "p", "variables": variables}}).messages == (Message("user", "plot\na.csv"),)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_request_with_anything_anywhere_is_read_without_raising(protocols, data) -> None:
    request = FULL_REQUEST
    for _ in range(data.draw(st.integers(1, 4))):
        where = data.draw(st.sampled_from([path for path in protocols.paths(request) if path]))
        request = protocols.replaced(request, where, data.draw(JUNK))
    for event in Reported().events("s", turn(request)):
        json.dumps(event, ensure_ascii=False).encode()


def test_the_same_words_after_another_answer_are_new_words() -> None:
    reported = Reported()

    def new(previous: str) -> list[str]:
        body = {
            "instructions": "i",
            "input": "yes",
            "tools": FULL_REQUEST["tools"][:1],
            "previous_response_id": previous,
        }
        return [event["kind"] for event in reported.events("s", turn(body))]

    assert new("") == ["turn_started", "tool_declared", "user_turn", "user_turn"]
    assert new("resp_1") == ["turn_started", "user_turn"]
    assert new("resp_1") == ["turn_started"]  # asked again
    assert new("resp_2") == ["turn_started", "user_turn"]


# ----------------------------------------------------------------------------------------------------- conversation


@pytest.mark.parametrize(
    ("method", "path", "read"),
    [
        ("POST", "/v1/responses", True),
        ("POST", "/openai/responses?api-version=1", True),
        ("POST", "/v1/responses/resp_1/cancel", False),
        ("POST", "/v1/responses/compact", False),
        ("GET", "/v1/responses/resp_1", False),
    ],
)
def test_only_the_making_of_an_answer_is_read(method, path, read) -> None:
    api = apis.find(method, path)
    assert (api is not None and api.name == "responses") is read


@pytest.mark.parametrize("streamed", [True, False])
def test_an_exchange_reports_finished_events_and_the_history_sent_again_stays_one_session(streamed) -> None:
    sent: list[dict] = []
    conversations = Conversations(sent.append)
    api = apis.find("POST", "/v1/responses")
    assert api is not None
    kind, body = (
        ("text/event-stream", sse(WHOLE))
        if streamed
        else ("application/json", json.dumps(response("completed", OUTPUT)).encode())
    )

    def ask(request: dict) -> str:
        exchange = conversations.begin(api, "/v1/responses", {}, json.dumps(request).encode())
        assert exchange is not None
        exchange.answer(200, {"Content-Type": kind})
        exchange.feed(body)
        exchange.end()
        return exchange.session

    first = {"model": "gpt-5", "input": [{"role": "user", "content": "hi"}]}
    session = ask(first)
    assert merged(sent) == [("turn_started", "", ""), ("user_turn", "hi", ""), *WHOLE_TURN]
    result = {"type": "function_call_output", "call_id": "call_1", "output": "3"}
    assert ask({**first, "input": [*first["input"], *OUTPUT, result]}) == session
    assert conversations.failures == 0
