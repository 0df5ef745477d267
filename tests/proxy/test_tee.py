"""What the predictor hears of the official client's conversations, and when."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import threading

import brotli
import openai
import pytest
import zstandard

MESSAGES = [{"role": "system", "content": "You write Python."}, {"role": "user", "content": "plot data.csv"}]
TOOLS = [{"type": "function", "function": {"name": "run_python", "parameters": {"type": "object"}}}]


def client_of(proxy, **options) -> openai.OpenAI:
    return openai.OpenAI(api_key="sk-secret-1", base_url=proxy.base_url, max_retries=0, **options)


def joined(events: list[dict], kind: str) -> str:
    return "".join(event["text"] for event in events if event["kind"] == kind)


def check(events: list[dict], code: str) -> None:
    """The events of one whole turn of MESSAGES, answered with text and code."""
    kinds = [event["kind"] for event in events]
    assert kinds[:4] == ["turn_started", "tool_declared", "user_turn", "user_turn"]
    assert kinds[-2:] == ["code_done", "turn_ended"]
    assert events[0]["model"] == "m"
    assert events[1]["name"] == "run_python"
    assert [event["text"] for event in events[2:4]] == ["You write Python.", "plot data.csv"]
    assert joined(events, "assistant_text") == "Let me see. "
    assert [(event["name"], event["call"]) for event in events if event["kind"] == "tool_call_started"] == [
        ("run_python", "call_1")
    ]
    assert joined(events, "code") == code
    assert events[-2]["digest"] == hashlib.sha256(code.encode()).hexdigest()
    assert events[-1]["text"] == "tool_calls"
    assert {event["app"] for event in events} == {"OpenAI/Python"} or {event["app"] for event in events} == {
        "AsyncOpenAI/Python"
    }


ENCODE = {"identity": bytes, "gzip": gzip.compress, "br": brotli.compress, "zstd": zstandard.compress}


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_streamed_answer_is_heard(proxy, provider, predictor, answers, encoding) -> None:
    body = ENCODE[encoding](b"".join(answers.events()))
    pieces = [body[start : start + 11] for start in range(0, len(body), 11)]
    provider.script = answers.chunked(
        pieces, headers=f"Content-Type: text/event-stream\r\nContent-Encoding: {encoding}\r\n"
    )
    client = client_of(proxy, default_headers={"X-Ephemeral-Session-Id": f"streamed-{encoding}"})
    chunks = list(client.chat.completions.create(model="m", messages=MESSAGES, tools=TOOLS, stream=True))
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    check(predictor.ended(f"streamed-{encoding}"), answers.CODE)


@pytest.mark.parametrize("encoding", ENCODE)
def test_requests_and_answers_are_heard_in_every_encoding(proxy, provider, predictor, answers, encoding) -> None:
    body = ENCODE[encoding](b"".join(answers.events()))
    pieces = [body[start : start + 11] for start in range(0, len(body), 11)]
    provider.script = answers.chunked(
        pieces, headers=f"Content-Type: text/event-stream\r\nContent-Encoding: {encoding}\r\n"
    )
    request = ENCODE[encoding](json.dumps({"model": "m", "messages": MESSAGES, "tools": TOOLS}).encode())
    headers = {
        "Content-Encoding": encoding,
        "X-Ephemeral-Session-Id": f"raw-{encoding}",
        "X-Ephemeral-App": "OpenAI/Python",
    }
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=30)
    connection.request("POST", "/v1/chat/completions", request, headers)
    assert connection.getresponse().read() == body
    connection.close()
    check(predictor.ended(f"raw-{encoding}"), answers.CODE)


def test_an_answer_in_one_piece_is_heard(proxy, provider, predictor, answers) -> None:
    provider.script = answers.sized(answers.whole())
    client = client_of(proxy, default_headers={"X-Ephemeral-Session-Id": "whole"})
    raw = client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES, tools=TOOLS)
    assert raw.http_response.content == answers.whole()
    assert raw.parse().choices[0].message.tool_calls[0].id == "call_1"
    check(predictor.ended("whole"), answers.CODE)


async def test_the_asynchronous_client_is_heard(proxy, provider, predictor, answers) -> None:
    provider.script = answers.chunked(answers.events())
    headers = {"X-Ephemeral-Session-Id": "async"}
    async with openai.AsyncOpenAI(api_key="sk-secret-1", base_url=proxy.base_url, default_headers=headers) as client:
        stream = await client.chat.completions.create(model="m", messages=MESSAGES, tools=TOOLS, stream=True)
        assert [chunk async for chunk in stream]
    check(predictor.ended("async"), answers.CODE)


def test_code_is_complete_for_the_predictor_before_the_answer_ends(proxy, provider, predictor, answers) -> None:
    release = threading.Event()
    *pieces, finish, done = answers.events()
    head, *chunks = answers.chunked([*pieces, finish, done])
    provider.script = [head, *chunks[: len(pieces)], lambda: release.wait(30), *chunks[len(pieces) :]]
    client = client_of(proxy, default_headers={"X-Ephemeral-Session-Id": "early"})
    stream = client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
    events = predictor.wait(lambda events: events and events[-1]["kind"] == "code_done", "early")
    assert joined(events, "code") == answers.CODE
    release.set()
    assert list(stream)
    predictor.ended("early")


def test_a_growing_history_is_one_session_and_only_its_news_are_told(proxy, provider, predictor, answers) -> None:
    before = len(predictor.events)
    provider.script = answers.sized(answers.whole())
    client = client_of(proxy)
    asked = [{"role": "user", "content": "plot a history that grows"}]  # nobody else's words
    answer = client.chat.completions.create(model="m", messages=asked, tools=TOOLS).choices[0].message
    result = {"role": "tool", "tool_call_id": "call_1", "content": "3.14"}
    history = [*asked, answer.model_dump(exclude_none=True), result]
    client.chat.completions.create(model="m", messages=history, tools=TOOLS)
    new = predictor.wait(lambda events: sum(event["kind"] == "turn_ended" for event in events[before:]) == 2)[before:]
    assert len({event["session"] for event in new}) == 1
    second = new[[event["kind"] for event in new].index("turn_ended") + 1 :]
    assert [event["kind"] for event in second[:2]] == ["turn_started", "tool_result"]
    assert second[1]["text"] == "3.14"
    assert second[2]["kind"] == "assistant_text"


def test_a_conversation_goes_on_after_the_proxy_was_started_anew(start_proxy, provider, predictor, state, answers) -> None:
    provider.script = answers.sized(answers.whole())
    before = len(predictor.events)
    history = [{"role": "user", "content": "plot something that outlives the proxy"}]
    for turns in (1, 2):
        proxy = start_proxy(f"http://{provider.authority}", state)
        answer = client_of(proxy).chat.completions.create(model="m", messages=history, tools=TOOLS).choices[0].message
        result = {"role": "tool", "tool_call_id": "call_1", "content": "3.14"}
        history += [answer.model_dump(exclude_none=True), result]
        predictor.wait(lambda events, turns=turns: sum(event["kind"] == "turn_ended" for event in events[before:]) == turns)
        assert proxy.stop() == 0
    assert len({event["session"] for event in predictor.events[before:]}) == 1


def test_the_same_first_words_begin_another_session(proxy, provider, predictor, answers) -> None:
    before = len(predictor.events)
    provider.script = answers.sized(answers.whole())
    for _ in range(2):
        client_of(proxy).chat.completions.create(model="m", messages=MESSAGES)
    new = predictor.wait(lambda events: sum(event["kind"] == "turn_ended" for event in events[before:]) == 2)[before:]
    assert len({event["session"] for event in new}) == 2


def test_a_refused_turn_ends_as_an_error(proxy, provider, predictor, answers) -> None:
    provider.script = answers.sized(b'{"error": {"message": "slow down"}}', "429 Too Many Requests")
    client = client_of(proxy, default_headers={"X-Ephemeral-Session-Id": "refused"})
    with pytest.raises(openai.RateLimitError, match="slow down"):
        client.chat.completions.create(model="m", messages=MESSAGES)
    assert predictor.ended("refused")[-1]["text"] == "error"


def test_a_client_that_hangs_up_ends_the_turn(proxy, provider, predictor, answers) -> None:
    release = threading.Event()
    head, *chunks = answers.chunked(answers.events())
    provider.script = [head, *chunks[:3], lambda: release.wait(30), *chunks[3:]]
    client = client_of(proxy, default_headers={"X-Ephemeral-Session-Id": "gone"})
    stream = client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
    next(iter(stream))
    stream.close()
    client.close()
    try:
        assert predictor.ended("gone")[-1]["text"] == "cut"
    finally:
        release.set()


def test_no_credential_reaches_the_predictor_or_the_log(proxy, provider, predictor, answers) -> None:
    provider.script = answers.sized(answers.whole())
    client_of(proxy, default_headers={"X-Ephemeral-Session-Id": "secret"}).chat.completions.create(
        model="m", messages=MESSAGES
    )
    predictor.ended("secret")
    assert "sk-secret" not in json.dumps(predictor.events) + "".join(proxy.log)
