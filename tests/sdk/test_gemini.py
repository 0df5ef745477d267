"""Gemini's requests and answers, in its three framings and both spellings."""

from __future__ import annotations

import hashlib
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ephemeral.streams.gemini import Answer, turn
from ephemeral.streams.turn import Reported

CODE = 'import numpy as np  # 🐍\nprint("π{[\\\\")'
PATH = "/v1beta/models/gemini-2.5-flash:streamGenerateContent"


def digest(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()


def chunk(*parts: dict, finish: str | None = None) -> dict:
    candidate: dict = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "responseId": "r1", "modelVersion": "gemini-2.5-flash"}


def called(**function: object) -> dict:
    return {"functionCall": function, "thoughtSignature": "EqQB"}


CHUNKS = [
    chunk({"text": "Hmm.", "thought": True}),
    chunk({"text": " Yes.", "thought": True}),
    chunk({"text": "Let me "}),
    chunk({"text": "see.\n"}),
    chunk(called(name="run", args={"code": CODE, "limits": {"code": "no", "s": 1}})),
    {**chunk({"text": ""}, finish="STOP"), "usageMetadata": {"totalTokenCount": 9}},
]

WHOLE_TURN = [
    ("reasoning_text", "Hmm. Yes.", ""),
    ("assistant_text", "Let me see.\n", ""),
    ("tool_call_started", "run", "r1:0"),
    ("code", CODE, "r1:0"),
    ("code_done", digest(CODE), "r1:0"),
    ("turn_ended", "tool_calls", ""),
]


def parts_of(chunks: list[dict]) -> list[dict]:
    return [part for each in chunks for part in each["candidates"][0]["content"]["parts"]]


DOCUMENT = chunk(*parts_of(CHUNKS), finish="STOP")


def sse(messages: list) -> bytes:
    return b"".join(b"data: " + json.dumps(message).encode() + b"\r\n\r\n" for message in messages)


def array(messages: list) -> bytes:
    """As the API streams it without ``alt=sse``."""
    texts = [json.dumps(message, indent=2, ensure_ascii=False) for message in messages]
    return ("[" + "\n,\n".join(texts) + "\n]\n").encode("utf-8", "replace")


def snake(value: object) -> object:
    if isinstance(value, dict):
        return {
            re.sub("([A-Z])", r"_\1", key).lower(): item if key == "args" else snake(item)
            for key, item in value.items()
        }
    return [snake(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("spelling", [list, snake])
def test_an_answer_reads_the_same_in_every_framing_however_it_is_cut(protocols, spelling) -> None:
    chunks = spelling(CHUNKS)
    assert protocols.read_in_every_way(lambda: Answer(streamed=True), sse(chunks)) == WHOLE_TURN
    assert protocols.read_in_every_way(lambda: Answer(streamed=False), array(chunks)) == WHOLE_TURN


def test_an_answer_in_one_document_reads_like_a_streamed_one(protocols) -> None:
    whole = json.dumps(DOCUMENT, indent=2).encode()
    assert protocols.read_in_every_way(lambda: Answer(streamed=False), whole) == WHOLE_TURN


def test_each_object_of_an_array_is_read_as_soon_as_it_is_whole(protocols) -> None:
    data = array(CHUNKS)
    reader = Answer(streamed=False)
    first = data.index(b"\n,\n")
    assert reader.feed(data[: first - 1]) == []
    assert [event["text"] for event in reader.feed(data[first - 1 : first])] == ["Hmm."]


@pytest.mark.parametrize("end", [b"", b"\n", b"]", b'\n,\n{"candidates": [{"content"'])
def test_an_array_that_breaks_off_leaves_what_was_whole(protocols, end) -> None:
    events = protocols.merged(protocols.read(Answer(streamed=False), b"[" + json.dumps(CHUNKS[2]).encode() + end))
    assert events == [("assistant_text", "Let me ", ""), ("turn_ended", "cut", "")]


@pytest.mark.parametrize("data", [b"[7]", b"<html>", b"null", b'["{}"]', b"}{", b"[[[", b'{"a": "\\', b"[{]}", b""])
def test_what_is_no_array_of_objects_ends_the_turn_and_no_more(protocols, data) -> None:
    assert protocols.read_in_every_way(lambda: Answer(streamed=False), data) == [("turn_ended", "cut", "")]


def test_an_object_too_large_is_dropped_and_the_next_one_read(protocols) -> None:
    reader = Answer(streamed=False)
    reader._split._limit = 1000
    events = protocols.merged(protocols.read(reader, array([chunk({"text": "x" * 2000}), CHUNKS[3], *CHUNKS[5:]])))
    assert events == [("assistant_text", "see.\n", ""), ("turn_ended", "stop", "")]
    assert reader.malformed == 1


def test_a_large_object_in_small_pieces_is_read_in_one_go(protocols) -> None:
    """A reader that looked at what it has again with every piece would not end before the test is stopped."""
    code = 'x = {"a": [1]}\n' * 400_000
    data = array([chunk(called(name="run", args={"code": code})), *CHUNKS[5:]])
    events = protocols.read(Answer(streamed=False), data, *range(64, len(data), 64))
    assert [event["digest"] for event in events if event["kind"] == "code_done"] == [digest(code)]


# ------------------------------------------------------------------------------------------------- calls and finishes


def partial(*arguments: tuple[str, object], more: bool = True, **fields: object) -> dict:
    values: list[dict] = []
    for path, value in arguments:
        kind = "stringValue" if isinstance(value, str) else "boolValue" if isinstance(value, bool) else "numberValue"
        values.append({"jsonPath": path, kind: value, **({"willContinue": True} if isinstance(value, str) else {})})
    return called(**fields, **({"partialArgs": values} if values else {}), **({"willContinue": True} if more else {}))


PARTIAL = [
    chunk(partial(name="run")),
    chunk(partial(("$.limits.seconds", 3.0), ("$.limits.net", False))),
    chunk(partial(("$.code", "import nu"))),
    chunk(partial(("$['code']", "mpy\nx = '🐍"))),
    chunk(partial(("$.code", "'"), ("$.files[0]", "a.csv"))),
    chunk(partial(more=False)),
    chunk(called()),
    chunk(partial(name="run")),
    chunk(partial(("$.code", "2"), more=False), finish="STOP"),
]


def test_arguments_that_stream_in_parts_are_read_while_they_come(protocols) -> None:
    assert protocols.read_in_every_way(lambda: Answer(streamed=True), sse(PARTIAL)) == [
        ("tool_call_started", "run", "r1:0"),
        ("code", "import numpy\nx = '🐍'", "r1:0"),
        ("code_done", digest("import numpy\nx = '🐍'"), "r1:0"),
        ("tool_call_started", "run", "r1:1"),
        ("code", "2", "r1:1"),
        ("code_done", digest("2"), "r1:1"),
        ("turn_ended", "tool_calls", ""),
    ]
    reader = Answer(streamed=True)
    assert [event.get("text") for event in reader.feed(sse(PARTIAL[:3]))] == [None, "import nu"]


def test_a_call_that_streams_is_recognised_whole_or_in_its_pieces() -> None:
    reader = Answer(streamed=True)
    reader.feed(sse(PARTIAL))
    arguments = {"code": "import numpy\nx = '🐍'", "files": ["a.csv"], "limits": {"net": False, "seconds": 3}}
    whole = [called(name="run", args=arguments), called(name="run", args={"code": "2"})]
    for parts in (whole, parts_of(PARTIAL)):
        (said,) = turn({"contents": [{"role": "model", "parts": parts}]}).messages
        assert len(said.marks) == 2
        assert set(said.marks) <= set(reader.marks)


def test_what_streams_without_end_is_not_remembered() -> None:
    reader = Answer(streamed=True)
    reader.feed(sse([chunk(partial(name="run"))]))
    for _ in range(200):
        reader.feed(sse([chunk(partial(("$.code", "x" * 10_000)))]))
    coming = reader._coming[0].function
    assert not coming._values
    reader.feed(sse([chunk(called())]))
    assert reader.marks == ["r1", "r1:0"]


def test_code_that_the_provider_runs_itself_is_a_call(protocols) -> None:
    parts = [
        {"executableCode": {"language": "PYTHON", "code": CODE}},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1\n"}},
        {"text": "It is 1."},
    ]
    reader = Answer(streamed=True)
    events = protocols.merged(protocols.read(reader, sse([chunk(part) for part in parts] + CHUNKS[-1:])))
    call = reader.calls[0]
    assert events == [
        ("tool_call_started", "code_execution", call),
        ("code", CODE, call),
        ("code_done", digest(CODE), call),
        ("assistant_text", "It is 1.", ""),
        ("turn_ended", "stop", ""),
    ]
    (said,) = turn({"contents": [{"role": "model", "parts": parts}]}).messages
    assert set(said.marks) == set(reader.marks) - {"r1"}


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("STOP", "stop"), (1, "stop"), ("MAX_TOKENS", "length"), (2, "length"), ("SAFETY", "content_filter"),
        ("MALFORMED_FUNCTION_CALL", "malformed_function_call"), (77, "cut"),
    ],
)  # fmt: skip
def test_why_it_ended_is_said_in_the_words_of_all_protocols(protocols, reason, word) -> None:
    assert protocols.read(Answer(streamed=True), sse([chunk(finish=reason)])) == [{"kind": "turn_ended", "text": word}]


def test_a_blocked_prompt_and_an_error_end_the_turn(protocols) -> None:
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}}
    assert protocols.read(Answer(streamed=True), sse([blocked]))[-1]["text"] == "content_filter"
    error = {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}
    assert protocols.read(Answer(streamed=False), array([CHUNKS[2], error, CHUNKS[3]])) == [
        {"kind": "assistant_text", "text": "Let me "},
        {"kind": "turn_ended", "text": "error"},
    ]


def test_only_the_first_candidates_text_is_read(protocols) -> None:
    two = {"candidates": [{"index": 1, "content": {"parts": [{"text": "b"}]}}, {"content": {"parts": [{"text": "a"}]}}]}
    assert protocols.read(Answer(streamed=True), sse([two]))[0]["text"] == "a"


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_wrong_types_anywhere_never_raise_and_the_turn_still_ends_once(protocols, data) -> None:
    messages = protocols.spoiled(data, [*CHUNKS, *PARTIAL])
    for framed, streamed in ((sse, True), (array, False)):
        protocols.survives(Answer(streamed), framed(messages))


# --------------------------------------------------------------------------------------------------------- requests


REQUEST = {
    "systemInstruction": {"parts": [{"text": "Be brief."}]},
    "tools": [
        {"functionDeclarations": [{"name": "run", "parameters": {}}, {"name": "look"}, 7]},
        {"codeExecution": {}},
        {"googleSearch": {}},
    ],
    "contents": [
        {"role": "user", "parts": [{"text": "see"}, {"fileData": {"displayName": "a.csv", "fileUri": "files/x"}}]},
        {
            "parts": [
                {"inlineData": {"mimeType": "image/png", "data": "AA=="}},
                {"fileData": {"fileUri": "gs://b/c.parquet"}},
            ]
        },
        {"role": "model", "parts": [called(id="f1", name="run", args={"code": "1"}), called(name="look")]},
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "f1", "name": "run", "response": {"output": "a\nb", "n": 2}}},
                {"functionResponse": {"name": "look", "response": {"result": ["x"]}}},
            ],
        },
        {"role": "model", "parts": [{"text": "ok"}]},
        7,
        {"role": "function", "parts": [{"functionResponse": {"name": "look"}}, {"text": "go on"}]},
    ],
    "generationConfig": {"temperature": 1},
}


@pytest.mark.parametrize("spelling", [dict, snake])
def test_messages_of_every_shape_are_read(spelling) -> None:
    assert [tuple(event.values()) for event in Reported().events("s", turn(spelling(REQUEST), PATH + "?alt=sse"))] == [
        ("turn_started", "gemini-2.5-flash"),
        ("tool_declared", "run"),
        ("tool_declared", "look"),
        ("tool_declared", "code_execution"),
        ("user_turn", "system", "Be brief."),
        ("user_turn", "user", "see\na.csv"),
        ("user_turn", "user", "c.parquet"),
        ("tool_result", "f1", "a\nb\n2"),
        ("tool_result", "look", '["x"]'),
        ("tool_result", "look", ""),
        ("user_turn", "user", "go on"),
    ]


def test_one_part_may_stand_in_place_of_a_list() -> None:
    body = {"system_instruction": {"parts": {"text": "Hi."}}, "contents": {"parts": {"text": "You."}}}
    assert [message.text for message in turn(body).messages] == ["Hi.", "You."]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_request_is_too_strange(protocols, data) -> None:
    Reported().events("s", turn(protocols.spoiled(data, REQUEST), PATH))


# --------------------------------------------------------------------------------- the answer, in the next request


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(st.text(), max_size=3), arguments=st.none() | st.dictionaries(st.text(), JSON, max_size=3))
def test_an_answer_is_recognised_in_the_next_requests_history(protocols, texts, arguments) -> None:
    parts = [{"text": text} for text in texts]
    if arguments is not None:
        parts.append({"functionCall": {"name": "run", "args": arguments}})
    reader = Answer(streamed=True)
    protocols.read(reader, sse([chunk(part) for part in parts]))
    as_it_came = [{"role": "model", "parts": [part]} for part in parts]
    joined = [{"role": "model", "parts": [{"text": "".join(texts).strip()}, *parts[len(texts) :]]}]
    for contents in (as_it_came, joined):
        said = turn({"contents": contents}).messages
        marks = {mark for message in said for mark in message.marks}
        assert marks <= set(reader.marks)
        assert bool(marks) == bool("".join(texts).strip() or arguments is not None)


def test_the_session_is_found_again(protocols) -> None:
    hi = {"role": "user", "parts": [{"text": "hi"}]}
    other = chunk({"text": "No."}, called(name="run", args={"code": "7"}), finish="STOP")
    histories = [
        [each["candidates"][0]["content"] for each in CHUNKS],
        [{"role": "model", "parts": [{"text": "Let me see."}]}],
        [{"role": "model", "parts": parts_of(CHUNKS)[-2:-1]}],
    ]
    for history in histories:
        for kind, framed in (("text/event-stream", sse), ("application/json; charset=UTF-8", array)):
            protocols.finds_its_session(
                PATH, kind, {"contents": [hi]}, (framed(CHUNKS), framed([other])), {"contents": [hi, *history, hi]}
            )
