"""OpenAI's Realtime over WebSocket, as documented now (GA) and as its beta was."""

from __future__ import annotations

import base64
import gc
import hashlib
import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

from ephemeral.streams.conversation import Conversations
from ephemeral.streams.realtime import RealtimeSocket

CODE = 'import numpy as np  # 🐍\nprint("π")'
ARGUMENTS = json.dumps({"code": CODE})
DIGEST = hashlib.sha256(CODE.encode()).hexdigest()
AUDIO = base64.b64encode(bytes(3600)).decode()
TOOL = {"type": "function", "name": "run", "description": "Runs Python", "parameters": {"type": "object"}}

Line = tuple[str, dict]
"""Who sends (``>`` the client, ``<`` the server), and the message."""


def client(kind: str, **more: object) -> Line:
    return (">", {"type": kind, **more})


def server(kind: str, **more: object) -> Line:
    return ("<", {"type": kind, "event_id": f"event_{kind}", **more})


def response(identity: str, status: str, **more: object) -> dict:
    return {
        "object": "realtime.response",
        "id": identity,
        "status": status,
        "status_details": None,
        "output": [],
        **more,
    }


def pieces(text: str, length: int = 4) -> list[str]:
    return [text[start : start + length] for start in range(0, len(text), length)]


def spoken(identity: str, place: int, text: str, *, beta: bool = False, audio: bool = False) -> list[Line]:
    """A message item of an answer, as text or as speech with its transcript."""
    kinds = {
        (False, False): "response.output_text", (True, False): "response.text",
        (False, True): "response.output_audio_transcript", (True, True): "response.audio_transcript",
    }  # fmt: skip
    kind, sound = kinds[beta, audio], "response.audio" if beta else "response.output_audio"
    where = {"response_id": identity, "item_id": f"item_{identity}_{place}", "output_index": place, "content_index": 0}
    part = {"type": ("audio" if beta else "output_audio") if audio else ("text" if beta else "output_text")}
    whole = {**part, ("transcript" if audio else "text"): text}
    item = {
        "id": where["item_id"],
        "object": "realtime.item",
        "type": "message",
        "status": "in_progress",
        "role": "assistant",
    }
    lines = [
        server("response.output_item.added", response_id=identity, output_index=place, item={**item, "content": []}),
        server("response.content_part.added", **where, part={"type": "audio" if audio else "text", "text": ""}),
    ]
    for piece in pieces(text):
        lines.append(server(f"{kind}.delta", **where, delta=piece))
        if audio:
            lines.append(server(f"{sound}.delta", **where, delta=AUDIO))
    done = {**item, "status": "completed", "content": [whole]}
    return [
        *lines,
        server(f"{kind}.done", **where, **({"transcript": text} if audio else {"text": text})),
        server("response.output_item.done", response_id=identity, output_index=place, item=done),
    ]


def called(identity: str, place: int) -> list[Line]:
    """A function call of an answer."""
    where = {"response_id": identity, "item_id": "item_call", "output_index": place, "call_id": "call_1"}
    item = {"id": "item_call", "object": "realtime.item", "type": "function_call", "name": "run", "call_id": "call_1"}
    began, done = (
        {**item, "status": "in_progress", "arguments": ""},
        {**item, "status": "completed", "arguments": ARGUMENTS},
    )
    return [
        server("response.output_item.added", response_id=identity, output_index=place, item=began),
        server("conversation.item.added", previous_item_id=None, item=began),
        *(server("response.function_call_arguments.delta", **where, delta=piece) for piece in pieces(ARGUMENTS)),
        server("response.function_call_arguments.done", **where, name="run", arguments=ARGUMENTS),
        server("response.output_item.done", response_id=identity, output_index=place, item=done),
    ]


def answered(identity: str, *items: list[Line], status: str = "completed", **more: object) -> list[Line]:
    return [
        server("response.created", response=response(identity, "in_progress")),
        *(line for lines in items for line in lines),
        server("response.done", response=response(identity, status, **more)),
        server("rate_limits.updated", rate_limits=[]),
    ]


def said(text: str) -> Line:
    return client(
        "conversation.item.create",
        item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]},
    )


def typed(*, beta: bool) -> list[Line]:
    """A conversation in writing: a question, a call, its result, the answer."""
    session = {"instructions": "Be brief.", "tools": [TOOL]}
    configured = session | ({"modalities": ["text"]} if beta else {"type": "realtime", "output_modalities": ["text"]})
    held = {"id": "sess_1", "object": "realtime.session", "model": "gpt-realtime", "instructions": "", "tools": []}
    held |= {} if beta else {"type": "realtime"}
    result = {"type": "function_call_output", "call_id": "call_1", "output": "3"}
    return [
        server("session.created", session=held),
        client("session.update", session=configured),
        server("session.updated", session=held | session),
        said("hi"),
        server("conversation.item.added", item={"type": "message", "role": "user", "content": []}),
        client("response.create"),
        *answered("resp_1", spoken("resp_1", 0, "Let me see.", beta=beta), called("resp_1", 1)),
        client("conversation.item.create", item=result),
        client("response.create", response={"metadata": {"x": "y"}}),
        *answered("resp_2", spoken("resp_2", 0, "3", beta=beta)),
    ]


def run(lines: list[Line], headers: dict | None = None, conversations: Conversations | None = None) -> list[dict]:
    sent: list[dict] = []
    conversations = conversations or Conversations(sent.append)
    socket = RealtimeSocket(conversations, headers or {}, "openai", "/v1/realtime?model=gpt-realtime-mini")
    for number, (who, message) in enumerate(lines):
        (socket.from_client if who == ">" else socket.from_server)(json.dumps(message), 1000.0 + number)
    socket.end(2000.0)
    assert conversations.failures == 0
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


TYPED = [
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


def test_the_messages_of_these_tests_are_what_the_official_client_takes() -> None:
    adapter: TypeAdapter = TypeAdapter(RealtimeServerEvent)
    for who, message in typed(beta=False):
        if who == "<":
            adapter.validate_python(message)


@pytest.mark.parametrize("beta", [False, True])
def test_a_conversation_in_writing_is_read_in_the_shapes_of_now_and_of_the_beta(beta) -> None:
    events = run(typed(beta=beta))
    assert merged(events) == TYPED
    assert {(event["session"], event["at"] >= 1000) for event in events} == {("sess_1", True)}
    assert (events[0]["model"], events[0]["provider"]) == ("gpt-realtime", "openai")


def test_code_is_told_piece_by_piece_before_its_call_is_whole() -> None:
    lines = typed(beta=False)
    done = next(n for n, (_, message) in enumerate(lines) if message["type"] == "response.function_call_arguments.done")
    events = run(lines[:done])
    assert sum(event["kind"] == "code" for event in events) > 5
    assert merged(events)[-2:] == [("code_done", DIGEST, "call_1"), ("turn_ended", "cut", "")]


def test_a_connection_that_breaks_anywhere_ends_each_turn_once() -> None:
    lines = typed(beta=False)
    for cut in range(len(lines)):
        kinds = [event["kind"] for event in run(lines[:cut])]
        assert kinds.count("turn_started") == kinds.count("turn_ended")


@pytest.mark.parametrize("beta", [False, True])
def test_speech_is_read_by_its_transcripts_and_begins_turns_by_itself(beta) -> None:
    heard = "conversation.item.input_audio_transcription.completed"
    lines = [
        server("session.created", session={"id": "sess_1", "model": "m"}),
        *[client("input_audio_buffer.append", audio=AUDIO)] * 5,
        server("input_audio_buffer.speech_started", item_id="i", audio_start_ms=1),
        server("input_audio_buffer.speech_stopped", item_id="i", audio_end_ms=2),
        server("input_audio_buffer.committed", item_id="i"),
        server(heard, item_id="i", content_index=0, transcript="Plot it with pandas."),
        *answered("resp_1", spoken("resp_1", 0, "Sure.", beta=beta, audio=True)),
        server("input_audio_buffer.committed", item_id="j"),
        server("response.created", response=response("resp_2", "in_progress")),
        server(heard, item_id="j", content_index=0, transcript="No, polars!"),
        *answered("resp_2", spoken("resp_2", 0, "Fine.", beta=beta, audio=True))[1:],
    ]
    assert merged(run(lines)) == [
        ("turn_started", "", ""),
        ("user_turn", "Plot it with pandas.", ""),
        ("assistant_text", "Sure.", ""),
        ("turn_ended", "stop", ""),
        ("turn_started", "", ""),
        ("user_turn", "No, polars!", ""),
        ("assistant_text", "Fine.", ""),
        ("turn_ended", "stop", ""),
    ]


def test_the_same_words_said_twice_are_told_twice() -> None:
    lines = [
        said("yes"), client("response.create"), *answered("resp_1"),
        said("yes"), client("response.create"), *answered("resp_2"),
    ]  # fmt: skip
    assert [event["kind"] for event in run(lines)].count("user_turn") == 2


def test_headers_name_the_session_and_connections_without_are_sessions_of_their_own() -> None:
    assert {event["session"] for event in run(typed(beta=False), {"X-Session-ID": "mine"})} == {"mine"}
    sent: list[dict] = []
    conversations = Conversations(sent.append)
    silent = typed(beta=False)[1:2] + typed(beta=False)[3:]  # the server's id of its session was not seen
    for _ in range(2):
        run(silent, conversations=conversations)
    assert len({event["session"] for event in sent}) == 2


@pytest.mark.parametrize(
    ("status", "details", "reason"),
    [
        ("completed", None, "stop"),
        ("cancelled", {"type": "cancelled", "reason": "turn_detected"}, "cancelled"),
        ("incomplete", {"type": "incomplete", "reason": "max_output_tokens"}, "length"),
        ("failed", {"type": "failed", "error": {"type": "server_error"}}, "error"),
    ],
)
def test_the_end_of_a_turn_says_why(status, details, reason) -> None:
    events = run([client("response.create"), *answered("resp_1", status=status, status_details=details)])
    assert merged(events)[-1] == ("turn_ended", reason, "")


def test_responses_beside_each_other_are_told_apart() -> None:
    aside = {
        "conversation": "none",
        "instructions": "Classify.",
        "input": [{"type": "message", "role": "user", "content": "x"}],
    }
    one = answered("resp_1", called("resp_1", 0))
    two = answered("resp_2", spoken("resp_2", 0, "aside"))
    lines = [client("response.create"), client("response.create", response=aside), one[0], two[0]]
    lines += [line for pair in zip(one[1:5], two[1:5], strict=True) for line in pair] + one[5:] + two[5:]
    events = run(lines)
    assert "".join(event["text"] for event in events if event["kind"] == "code") == CODE
    assert "".join(event["text"] for event in events if event["kind"] == "assistant_text") == "aside"
    assert [event["text"] for event in events if event["kind"] == "user_turn"] == ["Classify.", "x"]
    assert [event["text"] for event in events if event["kind"] == "turn_ended"] == ["tool_calls", "stop"]


def test_a_refused_response_ends_and_the_next_one_is_not_taken_for_it() -> None:
    error = {"type": "invalid_request_error", "code": "conversation_already_has_active_response", "event_id": "e2"}
    lines = [
        client("response.create", event_id="e1"),
        client("response.create", event_id="e2"),
        server("error", error=error),
        server("error", error={**error, "event_id": "e9"}),
        *answered("resp_1", spoken("resp_1", 0, "Yes.")),
    ]
    assert merged(run(lines)) == [
        ("turn_started", "", ""),
        ("turn_started", "", ""),
        ("turn_ended", "error", ""),
        ("assistant_text", "Yes.", ""),
        ("turn_ended", "stop", ""),
    ]


# ---------------------------------------------------------------------------------------------- hostile, and large


JUNK = st.sampled_from(
    [None, True, 0, -1, 1e308, "", "x", "\ud800", [], [None], [7], {}, {"id": []}, "response.created"]
)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_messages_with_anything_anywhere_never_raise_and_every_turn_ends(protocols, data) -> None:
    lines = typed(beta=data.draw(st.booleans()))
    for _ in range(data.draw(st.integers(1, 4))):
        number = data.draw(st.integers(0, len(lines) - 1))
        who, message = lines[number]
        lines[number] = (who, protocols.replaced(message, data.draw(st.sampled_from(protocols.paths(message))), data.draw(JUNK)))
    sent: list[dict] = []
    socket = RealtimeSocket(Conversations(sent.append), {}, "openai", "/v1/realtime")
    for who, message in lines:
        (socket.from_client if who == ">" else socket.from_server)(json.dumps(message), 1.0)
    socket.end(2.0)
    kinds = [event["kind"] for event in sent]
    assert kinds.count("turn_started") == kinds.count("turn_ended")
    for event in sent:
        json.dumps(event, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", '"x"', "\x00", "[" * 100_000, '{"type": {}}', '{"type": "response.done"']
)
def test_what_is_no_message_is_counted_or_ignored(text) -> None:
    sent: list[dict] = []
    socket = RealtimeSocket(Conversations(sent.append), {}, "openai", "/v1/realtime")
    socket.from_client(text, 1.0)
    socket.from_server(text, 1.0)
    socket.end(1.0)
    assert sent == []


def grown(socket: RealtimeSocket, messages: list[tuple[str, str]], times: int) -> int:
    """Bytes that are kept more after all messages were repeated ``times``."""

    def feed(count: int) -> None:
        for _ in range(count):
            for who, text in messages:
                (socket.from_client if who == ">" else socket.from_server)(text, 1.0)
        gc.collect()

    feed(50)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        feed(times)
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def test_a_hundred_thousand_audio_messages_are_not_even_parsed_and_leave_nothing() -> None:
    socket = RealtimeSocket(Conversations(lambda event: None), {}, "openai", "/v1/realtime")
    for who, message in typed(beta=False)[:10]:  # an answer is under way
        (socket.from_client if who == ">" else socket.from_server)(json.dumps(message), 1.0)
    where = {"event_id": "e", "response_id": "resp_1", "item_id": "i", "output_index": 0, "content_index": 0}
    torn = AUDIO[:-8]  # not valid JSON, so that parsing would be counted as a failure
    messages = [
        (">", '{"type":"input_audio_buffer.append","audio":"' + torn),
        (">", '{"event_id":"e","type":"input_audio_buffer.append","audio":"' + torn),
        ("<", json.dumps({"type": "response.output_audio.delta", **where})[:-1] + ',"delta":"' + torn),
        ("<", '{"event_id": "e", "type": "response.audio.delta", "response_id": "resp_1", "delta": "' + torn),
    ]
    assert grown(socket, messages, 25_000) < 20_000
    assert socket._conversations.failures == 0


def test_whatever_never_ends_is_kept_within_bounds() -> None:
    socket = RealtimeSocket(Conversations(lambda event: None), {}, "openai", "/v1/realtime")
    large = "x" * 10_000

    def endless(number: int) -> list[Line]:
        return [
            said(f"{number} {large}"),
            client("response.create", event_id=f"{number}"),
            server("response.created", response=response(f"a{number}", "in_progress")),
            server("response.created", response=response(f"b{number}", "in_progress")),
            client("session.update", session={"instructions": large, "tools": [TOOL]}),
        ]

    for number in range(1000):
        for who, message in endless(number):
            (socket.from_client if who == ">" else socket.from_server)(json.dumps(message), 1.0)
    assert len(socket._running) <= 32
    assert len(socket._waiting) <= 32
    for number in range(1000):
        socket.from_client(json.dumps(said(f"{number} {large}")[1]), 1.0)
    assert sum(len(message.text) for message in socket._heard) <= 4 << 20
