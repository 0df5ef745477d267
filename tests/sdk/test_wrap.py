"""``ephemeral.wrap``: the official client, unchanged for its owner, and heard by the predictor without a proxy."""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import openai
import pytest
from recording import Predictor

from ephemeral.wrap import session, wrap

wrapping = sys.modules["ephemeral.wrap"]  # `ephemeral.wrap` is the function
PATIENCE = 30.0
CODE = "import pandas as pd\nprint('🐍')\n"
MESSAGES = [{"role": "user", "content": "read a.csv"}]
TOOLS = [{"type": "function", "function": {"name": "run_python", "parameters": {"type": "object"}}}]


def chunks() -> list[bytes]:
    arguments = json.dumps({"code": CODE})
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "run_python", "arguments": ""}}
    deltas: list[tuple[dict, str | None]] = [
        ({"role": "assistant", "content": "Sure."}, None),
        ({"tool_calls": [call]}, None),
    ]
    for start in range(0, len(arguments), 6):
        deltas.append(({"tool_calls": [{"index": 0, "function": {"arguments": arguments[start : start + 6]}}]}, None))
    deltas.append(({}, "tool_calls"))
    base = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    lines = [json.dumps({**base, "choices": [{"index": 0, "delta": d, "finish_reason": f}]}) for d, f in deltas]
    return [f"data: {line}\n\n".encode() for line in [*lines, "[DONE]"]]


def whole() -> bytes:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "run_python", "arguments": json.dumps({"code": CODE})},
    }
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "Sure.", "tool_calls": [call]},
        "finish_reason": "tool_calls",
    }
    return json.dumps(
        {"id": "c1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    ).encode()


class Model(BaseHTTPRequestHandler):
    """The provider's side: streams when asked to, in gzip when ``server.gzip``; 500 for as many times as told."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(b'{"object": "list", "data": []}')

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((dict(self.headers), body))
        if self.path == "/moved/chat/completions":
            self.send_response(307)
            self.send_header("Location", "/v1/chat/completions")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.server.errors:
            self.server.errors -= 1
            self.answer(b'{"error": {"message": "no"}}', 500)
        elif json.loads(body).get("stream"):
            self.stream(chunks())
        else:
            self.answer(whole())

    def answer(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, pieces: list[bytes]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        if self.server.gzip:
            self.send_header("Content-Encoding", "gzip")
            packed = gzip.compress(b"".join(pieces))
            pieces = [packed[start : start + 9] for start in range(0, len(packed), 9)]
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in pieces:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        pass


class Provider(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Model)
        self.requests: list[tuple[dict, bytes]] = []
        self.gzip = False
        self.errors = 0
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as server:
        yield server
        server.shutdown()


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh state directory, and a fresh start of what ``wrap`` shares in a process."""
    for name in ("STATE", "PROXY_PORT"):
        monkeypatch.delenv(f"EPHEMERAL_{name}", raising=False)
    monkeypatch.setenv("EPHEMERAL_STATE", str(tmp_path))
    monkeypatch.setattr(wrapping, "_shared", None)
    yield tmp_path
    if wrapping._shared is not None:
        wrapping._shared.send.__self__.close()


@pytest.fixture
def predictor(state: Path) -> Iterator[Predictor]:
    with Predictor(state / "predictor.sock") as server:
        yield server
        server.shutdown()


@pytest.fixture
def client(provider: Provider, state: Path) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="sk-secret", base_url=f"{provider.url}/v1", max_retries=0) as made:
        yield wrap(made)


def check(events: list[dict]) -> None:
    """One whole turn: MESSAGES, answered with text and code."""
    kinds = [event["kind"] for event in events]
    assert kinds[:3] == ["turn_started", "tool_declared", "user_turn"]
    assert kinds[-2:] == ["code_done", "turn_ended"]
    assert "".join(event["text"] for event in events if event["kind"] == "code") == CODE
    assert "".join(event["text"] for event in events if event["kind"] == "assistant_text") == "Sure."
    assert events[-2]["digest"] == hashlib.sha256(CODE.encode()).hexdigest()
    assert events[-1]["text"] == "tool_calls"
    assert len({event["session"] for event in events}) == 1


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_a_synchronous_client_is_heard(client, provider, predictor, stream, packed) -> None:
    provider.gzip = packed
    answer = client.chat.completions.create(model="m", messages=MESSAGES, tools=TOOLS, stream=stream)
    if stream:
        assert list(answer)[-1].choices[0].finish_reason == "tool_calls"
    else:
        assert answer.choices[0].message.content == "Sure."
    check(predictor.ended())


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_asynchronous_client_is_heard(provider, predictor, stream, packed) -> None:
    provider.gzip = packed
    async with wrap(openai.AsyncOpenAI(api_key="k", base_url=f"{provider.url}/v1")) as client:
        assert isinstance(client, openai.AsyncOpenAI)
        answer = await client.chat.completions.create(model="m", messages=MESSAGES, tools=TOOLS, stream=stream)
        if stream:
            assert [chunk async for chunk in answer][-1].choices[0].finish_reason == "tool_calls"
        else:
            assert answer.choices[0].message.content == "Sure."
        check(predictor.ended())


def test_raw_and_streamed_responses_are_the_same_and_heard(client, provider, predictor) -> None:
    raw = client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES, tools=TOOLS)
    assert raw.http_response.content == whole()
    check(predictor.ended())
    with client.chat.completions.with_streaming_response.create(model="m", messages=MESSAGES, stream=True) as response:
        assert b"".join(response.iter_bytes()) == b"".join(chunks())
    predictor.ended(turns=2)


def test_it_survives_with_options_and_another_http_client(client, predictor) -> None:
    client.with_options(timeout=20).chat.completions.create(model="m", messages=MESSAGES, tools=TOOLS)
    check(predictor.ended())
    with client.copy(http_client=openai.DefaultHttpxClient()) as other:
        other.chat.completions.create(model="m", messages=MESSAGES)
        predictor.ended(turns=2)


def test_the_client_stays_what_it_was(provider, state) -> None:
    client = openai.OpenAI(api_key="k", base_url=provider.url)
    wrapped = wrap(client)
    assert wrapped is client
    assert wrap(wrapped) is client
    assert isinstance(client, openai.OpenAI)
    assert type(client).__name__ == "OpenAI"
    assert type(client).__mro__[1] is openai.OpenAI
    client.close()


def test_requests_are_the_same_as_without(provider, predictor) -> None:
    for prepare in (lambda client: client, wrap):
        with openai.OpenAI(api_key="k", base_url=f"{provider.url}/v1") as client, session("mine"):
            prepare(client).chat.completions.create(model="m", messages=MESSAGES, tools=TOOLS)
    assert provider.requests[0] == provider.requests[1]


def test_calls_inside_a_session_belong_to_it(client, predictor) -> None:
    with session("notebook 7") as name:
        client.chat.completions.create(model="m", messages=MESSAGES)
    with session("plain"):
        client.chat.completions.create(model="m", messages=MESSAGES)
    client.chat.completions.create(model="m", messages=MESSAGES)
    told = [event["session"] for event in predictor.ended(turns=3) if event["kind"] == "turn_started"]
    assert told[:2] == [name, "plain"]
    assert told[2] not in told[:2]


def test_a_growing_history_is_one_session(client, predictor) -> None:
    answer = client.chat.completions.create(model="m", messages=MESSAGES).choices[0].message
    history = [
        *MESSAGES,
        answer.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": "call_1", "content": "3"},
    ]
    client.chat.completions.create(model="m", messages=history)
    events = predictor.ended(turns=2)
    assert len({event["session"] for event in events}) == 1
    assert [event["kind"] for event in events].count("user_turn") == 1


def test_an_error_is_raised_as_ever_and_ends_the_turn(client, provider, predictor) -> None:
    provider.errors = 1
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="m", messages=MESSAGES)
    assert predictor.ended()[-1]["text"] == "error"


def test_a_stream_that_is_dropped_ends_the_turn_as_cut(client, predictor) -> None:
    stream = client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
    next(stream)
    stream.close()
    assert predictor.ended()[-1]["text"] == "cut"


def test_a_redirected_answer_is_heard_once(provider, predictor) -> None:
    with wrap(openai.OpenAI(api_key="k", base_url=f"{provider.url}/moved", max_retries=0)) as client:
        client.chat.completions.create(model="m", messages=MESSAGES, tools=TOOLS)
        check(predictor.ended())


def test_other_requests_are_left_alone(client, predictor) -> None:
    assert client.models.list().data == []
    assert client._client.event_hooks["response"] == []
    assert wrapping._shared is None


def test_without_a_predictor_nothing_is_noticed(client) -> None:
    for _ in range(20):
        assert client.chat.completions.create(model="m", messages=MESSAGES).choices[0].message.content == "Sure."


def test_a_fault_of_ours_breaks_nothing(client, monkeypatch) -> None:
    monkeypatch.setenv("EPHEMERAL_PROXY_PORT", "no number")
    assert list(client.chat.completions.create(model="m", messages=MESSAGES, stream=True))


def test_towards_our_proxy_it_only_names_the_session(client, provider, predictor, monkeypatch) -> None:
    monkeypatch.setenv("EPHEMERAL_PROXY_PORT", str(provider.server_address[1]))
    with session("mine"):
        client.chat.completions.create(model="m", messages=MESSAGES)
    headers = {name.lower(): value for name, value in provider.requests[-1][0].items()}
    assert headers["x-ephemeral-session-id"] == "mine"
    assert wrapping._shared is None


def test_something_else_is_refused() -> None:
    with pytest.raises(TypeError, match=r"openai\.OpenAI or AsyncOpenAI"):
        wrap(object())
