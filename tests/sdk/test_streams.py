"""The readers of a conversation's bytes, each tried with its input cut at every place it can be cut."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import time
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ephemeral.streams import encodings
from ephemeral.streams.chat_completions import AnswerReader, RequestReader
from ephemeral.streams.conversation import Conversations, is_conversation
from ephemeral.streams.json_string import CODE_KEYS, CodeArguments
from ephemeral.streams.sse import SSEReader

# ------------------------------------------------------------------------------------------------------------ sse

TRACES = {
    "one event": (b"data: a\n\n", [("", "a")]),
    "lines of every ending": (b"data: a\r\ndata: b\r\rdata: c\n\r\n", [("", "a\nb"), ("", "c")]),
    "names, comments and unknown fields": (
        b": ping\n\nevent: x\nid: 7\nretry: 9\ndata:a\n\ndata:  b\n\n",
        [("x", "a"), ("", " b")],
    ),
    "a byte order mark": (b"\xef\xbb\xbfdata: a\n\n", [("", "a")]),
    "no data, no event": (b"event: x\n\n\n\ndata\n\n", [("", "")]),
    "characters of several bytes": ("data: é🐍\n\n".encode(), [("", "é🐍")]),
    "broken characters": (b"data: \xff\n\n", [("", "\ufffd")]),
    "a last event without its blank line": (b"data: a\n\ndata: b", [("", "a"), ("", "b")]),
}


@pytest.mark.parametrize("name", TRACES)
def test_server_sent_events_read_the_same_however_they_are_cut(name) -> None:
    data, expected = TRACES[name]
    for first in range(len(data) + 1):
        for second in range(first, len(data) + 1):
            reader = SSEReader()
            events = [*reader.feed(data[:first]), *reader.feed(data[first:second]), *reader.feed(data[second:])]
            assert [*events, *reader.close()] == expected


def test_an_event_too_large_is_dropped_and_counted_and_the_next_one_read() -> None:
    data = b"data: " + b"x" * 200 + b"\ndata: y\n\ndata: fine\n\n"
    for cut in range(len(data)):
        reader = SSEReader(limit_bytes=100)
        assert [*reader.feed(data[:cut]), *reader.feed(data[cut:])] == [("", "fine")]
        assert reader.oversized == 1


def test_a_line_without_an_end_does_not_grow() -> None:
    reader = SSEReader(limit_bytes=1000)
    for _ in range(1000):
        assert reader.feed(b"x" * 1000) == []
    assert sum(map(len, reader._line)) <= 1000


# ---------------------------------------------------------------------------------------------------- json strings


def read(pieces: list[str]) -> tuple[list[str], CodeArguments]:
    """The strings that were completed, and the reader."""
    reader = CodeArguments()
    strings, current = [], ""
    for piece in pieces:
        for what, text in reader.feed(piece):
            text.encode()
            if what == "done":
                strings.append(current)
                current = ""
            else:
                current += text
    return strings, reader


DOCUMENTS = {
    "plain": ('{"code": "print(1)"}', ["print(1)"]),
    "escapes": (r'{"code":"a\n\"b\"\\ \/\t\b\f\r\u00e9"}', ['a\n"b"\\ /\t\b\f\ré']),
    "surrogate pairs": (r'{"code": "\ud83d\ude00 and 🐍"}', ["😀 and 🐍"]),
    "lonely surrogates": (r'{"code": "\ud83d \ude00 \ud83d"}', ["\ufffd \ufffd \ufffd"]),
    "not the first key": ('{"a": 1, "b": [true, {"code": "no"}], "c": "code", "code": "yes"}', ["yes"]),
    "only at the top": ('{"x": {"code": "no", "y": ["code", "no"]}, "z": 1}', []),
    "several keys": ('{"code": "one", "input": "two"}', ["one", "two"]),
    "a key written in escapes": (r'{"c\u006fde": "yes"}', ["yes"]),
    "not a string": ('{"code": ["a"], "source": null, "cmd": 3}', []),
    "empty": ('{"code": ""}', [""]),
    "braces inside strings": ('{"a": "}{][", "code": "d = {}"}', ["d = {}"]),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_code_in_arguments_reads_the_same_however_it_is_cut(name) -> None:
    document, expected = DOCUMENTS[name]
    for cut in range(len(document) + 1):
        assert read([document[:cut], document[cut:]])[0] == expected
    strings, reader = read(list(document))
    assert strings == expected
    assert not reader.malformed


def test_code_grows_with_every_piece() -> None:
    reader = CodeArguments()
    assert reader.feed('{"code": "import num') == [("code", "import num")]
    assert reader.feed("py\\") == [("code", "py")]
    assert reader.feed("nx") == [("code", "\nx")]
    assert reader.feed('"}') == [("done", "")]


@pytest.mark.parametrize(
    "text", ["", "[", "]", '"code"', "nonsense", '{"code": "\\x"}', '{"code": "\\u12g4"}', "}{", '{"code": "a"}]]]']
)
def test_arguments_that_are_no_json_object_end_quietly(text) -> None:
    read(list(text))


@settings(database=None, deadline=None, max_examples=100)
@given(st.dictionaries(st.sampled_from([*CODE_KEYS, "other"]), st.text(), max_size=3), st.integers(1, 9), st.booleans())
def test_any_code_survives_any_cutting(arguments, size, ascii_only) -> None:
    document = json.dumps(arguments, ensure_ascii=ascii_only)
    strings, reader = read([document[start : start + size] for start in range(0, len(document), size)])
    assert strings == [text for key, text in arguments.items() if key in CODE_KEYS]
    assert not reader.malformed


def test_a_key_without_an_end_does_not_grow() -> None:
    reader = CodeArguments()
    reader.feed('{"')
    for _ in range(1000):
        reader.feed("k" * 1000)
    assert len("".join(reader._decoded)) <= 1000


# ------------------------------------------------------------------------------------------------------- encodings

PLAIN = "data: wörter 🐍\n\n".encode() * 50


@pytest.mark.parametrize(
    ("coding", "encoded"),
    [
        ("", PLAIN),
        ("identity", PLAIN),
        ("gzip", gzip.compress(PLAIN)),
        ("X-GZIP", gzip.compress(PLAIN[:99]) + gzip.compress(PLAIN[99:])),
        ("deflate", zlib.compress(PLAIN)),
        ("deflate", zlib.compress(PLAIN)[2:-4]),
        ("deflate, gzip", gzip.compress(zlib.compress(PLAIN))),
    ],
)
def test_a_body_decodes_however_it_is_cut(coding, encoded) -> None:
    for size in (1, 2, 3, 17, len(encoded)):
        decode = encodings.decoder(coding)
        assert decode is not None
        assert b"".join(decode(encoded[start : start + size]) for start in range(0, len(encoded), size)) == PLAIN


def test_an_unknown_coding_has_no_decoder_unless_one_is_given() -> None:
    assert encodings.decoder("br") is None
    assert encodings.decoder("reverse", {"reverse": lambda: lambda data: data[::-1]})(b"ab") == b"ba"


def test_a_bomb_is_refused() -> None:
    decode = encodings.decoder("gzip")
    bomb = gzip.compress(bytes(encodings.LIMIT_BYTES + 1))
    with pytest.raises(encodings.TooLarge):
        decode(bomb)


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
    reader = AnswerReader(streamed=True)
    edges = [0, *cuts, len(data)]
    events = [event for start, end in itertools.pairwise(edges) for event in reader.feed(data[start:end])]
    return [*events, *reader.close(cut)]


def test_a_streamed_answer_reads_the_same_however_it_is_cut() -> None:
    for cut in range(len(STREAM)):
        assert merged(answer(STREAM, cut)) == WHOLE_TURN
    assert merged(answer(STREAM, *range(1, len(STREAM)))) == WHOLE_TURN


def test_code_is_done_before_the_finish_chunk() -> None:
    before_finish = STREAM[: STREAM.index(b'"tool_calls"}')]
    reader = AnswerReader(streamed=True)
    assert reader.feed(before_finish)[-1]["kind"] == "code_done"
    assert reader.calls == ["call_1"]
    assert reader.text == hashlib.sha256(b"Let me see.").hexdigest()


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
        reader = AnswerReader(streamed=False)
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
    assert codes(*map(chunk, legacy)) == [("a", "c1:0:0")]
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
        reader = AnswerReader(streamed)
        events = reader.feed(data) + reader.close()
        assert [event["kind"] for event in events].count("turn_ended") == 1
        assert reader.close() == []
        for event in events:
            json.dumps(event).encode()


def test_calls_without_number_stay_bounded() -> None:
    reader = AnswerReader(streamed=True)
    for number in range(2000):
        reader.feed(chunk(tool(number, "", f"call_{number}", "run")))
    assert len(reader.calls) <= 256


# --------------------------------------------------------------------------------------------------------- requests


def kinds(events: list[dict]) -> list[str]:
    return [event["kind"] for event in events]


def test_a_request_tells_only_what_the_session_has_not_said() -> None:
    reader = RequestReader()
    yes = {"role": "user", "content": "yes"}
    body = {"model": "m", "messages": [yes], "tools": [{"type": "function", "function": {"name": "run"}}]}
    assert reader.read("s", body) == [
        {"kind": "turn_started", "model": "m"},
        {"kind": "tool_declared", "name": "run"},
        {"kind": "user_turn", "text": "yes"},
    ]
    assert kinds(reader.read("s", body)) == ["turn_started"]
    longer = {**body, "messages": [yes, {"role": "assistant", "content": "Sure?"}, yes]}
    assert kinds(reader.read("s", longer)) == ["turn_started", "user_turn"]
    assert kinds(reader.read("s", longer)) == ["turn_started"]
    assert kinds(reader.read("another", body)) == ["turn_started", "tool_declared", "user_turn"]


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
    events = RequestReader().read(
        "s", {"messages": messages, "functions": [{"name": "run"}], "tools": [{"custom": {"name": "c"}}, {"type": "x"}]}
    )
    assert [tuple(event.values()) for event in events] == [
        ("turn_started", ""),
        ("tool_declared", "c"),
        ("tool_declared", "run"),
        ("user_turn", "Be brief."),
        ("user_turn", "See\na.csv"),
        ("tool_result", "call_1", "3"),
        ("tool_result", "run", "4"),
    ]


def test_the_memory_of_sessions_is_bounded() -> None:
    reader = RequestReader(sessions=10)
    for number in range(100):
        reader.read(f"s{number}", {"messages": [{"role": "user", "content": str(number)}]})
    assert len(reader._reported) == 10


# ----------------------------------------------------------------------------------------------------- conversation


def test_only_chat_completions_are_conversations() -> None:
    assert is_conversation("POST", "/v1/chat/completions?x=1")
    assert is_conversation("post", "/openai/deployments/m/chat/completions/")
    assert not is_conversation("GET", "/v1/chat/completions")
    assert not is_conversation("POST", "/v1/embeddings")


def test_an_exchange_reports_finished_events() -> None:
    sent: list[dict] = []
    conversations = Conversations(sent.append)
    request = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    exchange = conversations.begin(
        {"X-Ephemeral-Session-Id": "s", "User-Agent": "probe/1.0"}, json.dumps(request).encode()
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
        assert conversations.begin(headers, body) is None
    assert (sent, conversations.failures) == ([], 6)
    exchange = conversations.begin({}, b"{}")
    exchange.answer(200, {"content-encoding": "gzip"})
    exchange.feed(b"no gzip")
    exchange.feed(b"at all")
    exchange.end()
    assert kinds(sent) == ["turn_started", "turn_ended"]
    assert conversations.failures == 7
