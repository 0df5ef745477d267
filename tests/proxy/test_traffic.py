"""The traffic is sacred: through the proxy, both sides see what they would have seen without it."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import threading
import zlib
from pathlib import Path

import brotli
import openai
import pytest
import zstandard

CHAT = "/v1/chat/completions"
BODY = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "plot a sine"}]}).encode()


def ask(port: int, body: bytes = BODY, path: str = CHAT, method: str = "POST", host: str | None = None, **headers: str):
    """Status, reason, headers in order, and body of the answer; the exception's type and the bytes before it if it broke."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", host or f"127.0.0.1:{port}")
        connection.putheader("content-LENGTH", str(len(body)))
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders(body)
        response = connection.getresponse()
        received = b""
        broke = None
        try:
            while piece := response.read1(65536):
                received += piece
        except http.client.IncompleteRead as error:
            received += error.partial
            broke = type(error).__name__
        except ConnectionResetError:
            broke = "IncompleteRead"
        if response.length:
            broke = "IncompleteRead"
        return response.status, response.reason, response.getheaders(), received, broke
    finally:
        connection.close()


ENCODE = {
    "identity": lambda data: data,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
    "unknown": lambda data: data[::-1],
    "gzip, but broken": lambda data: gzip.compress(data)[:40] + b"garbage" * 20,
}


@pytest.mark.parametrize("encoding", ENCODE)
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_an_answer_is_the_same_through_the_proxy_and_directly(proxy, provider, answers, encoding, size) -> None:
    body = ENCODE[encoding](b"".join(answers.events()))
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    headers = f"Content-Type: text/event-stream\r\nContent-Encoding: {encoding.partition(',')[0]}\r\n"
    provider.script = answers.chunked(pieces, headers=headers)
    direct = ask(provider.server_address[1])
    assert direct[3] == body
    assert ask(proxy.port) == direct


@pytest.mark.parametrize(
    "status", ["200 OK", "204 No Content", "400 Bad Request", "429 Slow Down Please", "500 Oh No", "529 "]
)
def test_every_status_passes_with_its_reason_and_headers(proxy, provider, answers, status) -> None:
    headers = "retry-AFTER: 7\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nContent-Type: application/json\r\n"
    provider.script = answers.sized(
        b"" if status.startswith("204") else b'{"error": {"message": "no"}}', status, headers
    )
    direct = ask(provider.server_address[1])
    assert ask(proxy.port) == direct
    assert direct[0] == int(status.split()[0])


def test_a_request_reaches_the_provider_byte_for_byte(proxy, provider, answers) -> None:
    provider.script = answers.sized(answers.whole())
    headers = {"Authorization": "Bearer sk-test", "X-WEIRD-Case": "yes", "User-Agent": "probe/1"}
    path = CHAT + "?a=%20b&c=%2Fd"
    ask(provider.server_address[1], path=path, **headers)
    ask(proxy.port, path=path, **headers)
    assert provider.requests[-1] == provider.requests[-2]


def test_only_our_own_headers_are_taken_off_a_request(proxy, provider, predictor, answers) -> None:
    provider.script = answers.sized(answers.whole())
    ask(proxy.port, X_Ephemeral_Session_Id="mine", x_ephemeral_app="probe", X_Session_ID="kept")
    request = provider.requests[-1].lower()
    assert b"ephemeral" not in request
    assert b"x-session-id: kept" in request
    assert {event["app"] for event in predictor.ended("mine")} == {"probe"}


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1, 2]", b"\xff\xfe\x00", b'{"messages": 7}', b"[" * 100_000, b'{"messages": [null, {"role": 3}]}'],
)
def test_a_malformed_request_passes_unaltered(proxy, provider, answers, body) -> None:
    provider.script = answers.sized(b'{"error": {"message": "bad"}}', "400 Bad Request")
    assert ask(proxy.port, body)[0] == 400
    assert provider.requests[-1].endswith(b"\r\n\r\n" + body)


def test_other_paths_of_the_provider_pass_both_by_v1_and_by_name(proxy, provider, answers) -> None:
    provider.script = answers.sized(b'{"data": []}')
    for path in ("/v1/models", "/openai/v1/models"):
        assert ask(proxy.port, b"", path, "GET")[3] == b'{"data": []}'
        assert provider.requests[-1].startswith(b"GET /v1/models HTTP/1.1\r\n")


def test_a_large_request_and_a_large_answer_pass(proxy, provider, answers) -> None:
    large = json.dumps({"messages": [{"role": "user", "content": "x" * 5_000_000}]}).encode()
    answer = b'{"choices": [], "padding": "' + b"y" * 5_000_000 + b'"}'
    provider.script = answers.sized(answer)
    assert ask(proxy.port, large)[3] == answer
    assert provider.requests[-1].endswith(large)


@pytest.mark.parametrize("shape", ["chunked", "sized"])
def test_an_answer_cut_off_is_cut_off_for_the_client_too(
    proxy, provider, predictor, answers, hang_up, shape
) -> None:
    events = answers.events()
    half = b"".join(events[:4])
    if shape == "chunked":
        provider.script = [*answers.chunked([half])[:-1], hang_up]
    else:
        head = answers.sized(b"".join(events), headers="Content-Type: text/event-stream\r\n")[0]
        provider.script = [head, half, hang_up]
    session = f"cut-{shape}"
    direct = ask(provider.server_address[1])
    through = ask(proxy.port, X_Ephemeral_Session_Id=session)
    assert direct[3:] == (half, "IncompleteRead")
    assert through == direct
    assert predictor.ended(session)[-1]["text"] == "cut"


def test_the_first_bytes_arrive_while_the_provider_still_holds_back_the_rest(proxy, provider, answers) -> None:
    release = threading.Event()
    events = answers.events()
    head, first, *rest = answers.chunked(events)
    provider.script = [head, first, lambda: release.wait(30), *rest]
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=30)
    connection.request("POST", CHAT, BODY)
    response = connection.getresponse()
    assert response.read1(100_000) == events[0]
    release.set()
    assert response.read() == b"".join(events[1:])
    connection.close()


def test_a_provider_that_is_not_there_is_named_in_the_shape_that_clients_read(start_proxy, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        proxy = start_proxy(f"http://127.0.0.1:{unused.getsockname()[1]}", tmp_path)
        client = openai.OpenAI(api_key="sk-secret", base_url=proxy.base_url, max_retries=0)
        with pytest.raises(openai.InternalServerError, match=r"could not reach 127\.0\.0\.1") as caught:
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
    assert caught.value.status_code == 502
    assert caught.value.code == "upstream_unreachable"


@pytest.mark.parametrize("predictor_is", ["absent", "hanging"])
def test_nobody_notices_when_the_predictor_is_dead(
    start_proxy, provider, answers, state, predictor, tmp_path, predictor_is
) -> None:
    provider.script = answers.chunked(answers.events())
    predictor.hang = predictor_is == "hanging"
    try:
        proxy = start_proxy(f"http://{provider.authority}", state if predictor.hang else tmp_path)
        direct = ask(provider.server_address[1])
        for _ in range(20):
            assert ask(proxy.port) == direct
        assert json.loads(ask(proxy.port, b"", "/healthz", "GET")[3])["events_sent"] == 0
        assert proxy.stop() == 0
    finally:
        predictor.hang = False


def test_a_websocket_passes(proxy, provider) -> None:
    # One masked text frame "hi" from the client, one unmasked "yo" from the provider.
    received: list[bytes] = []
    provider.script = [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        b"\x81\x02yo",
    ]
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=30) as client:
        client.sendall(
            b"GET /v1/realtime HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        data = b""
        while not data.endswith(b"\x81\x02yo"):
            piece = client.recv(65536)
            assert piece, f"the proxy hung up after {data!r}"
            data += piece
        received.append(data)
    assert received[0].startswith(b"HTTP/1.1 101 ")
