"""The same bytes directly and through the proxy, in both directions: raw connections, nothing parsed in between."""

from __future__ import annotations

import gzip
import re
import socket
import threading
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PATIENCE = 30

CHAT = b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "plot a sine"}]}'


def exchange(port: int, request: bytes | list, host: int) -> bytes:
    """All that comes back until the connection ends. ``host`` is the port named in Host: the same for both ways. A function
    among the pieces of a request is called in between."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
        for piece in request if isinstance(request, list) else [request]:
            if callable(piece):
                piece()
            else:
                client.sendall(piece.replace(b"HOST", b"127.0.0.1:%d" % host))
        try:
            while piece := client.recv(65536):
                received += piece
        except ConnectionResetError:
            pass  # how a broken connection ends is up to the kernels; what came before is compared
    return received


def post(path: str, body: bytes = CHAT, head: bytes = b"") -> bytes:
    return b"POST %s HTTP/1.1\r\nHost: HOST\r\n%sconnection: close\r\nContent-Length: %d\r\n\r\n%s" % (
        path.encode(), head, len(body), body,
    )  # fmt: skip


def both(proxy, provider, request: bytes | list, prefix: bytes = b"") -> bytes:
    """The answer, after it was the same both ways, and the request, too. ``prefix`` stands before paths at the proxy."""

    def there(piece: bytes) -> bytes:
        return re.sub(rb"^([A-Z]+) ", rb"\1 " + prefix, piece) if prefix else piece

    port = provider.server_address[1]
    before = len(provider.requests)
    direct = exchange(port, request, port)
    seen = provider.requests[before:]
    pieces = request if isinstance(request, list) else [request]
    proxied = exchange(proxy.port, [there(piece) if isinstance(piece, bytes) else piece for piece in pieces], port)
    assert proxied == direct
    assert provider.requests[before + len(seen) :] == seen
    return direct


# ---------------------------------------------------------------------------- protocols × encodings × borders of chunks

ANSWERS = {
    "/v1/chat/completions": b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"h\xc3\xa9"}}]}\n\ndata: [DONE]\n\n',
    "/v1/responses": b'event: response.created\ndata: {"type":"response.created","response":{"id":"r"}}\n\n',
    "/v1/completions": b'data: {"choices":[{"text":"x"}]}\n\ndata: [DONE]\n\n',
    "/v1/embeddings": b'{"data": [{"embedding": [0.1]}]}',
    "/v1/messages": b'event: message_start\ndata: {"type":"message_start","message":{"id":"m"}}\n\n',
    "/v1beta/models/g:streamGenerateContent?alt=sse": b'data: {"candidates":[{"content":{"parts":[{"text":"x"}]}}]}\r\n\r\n',
    "/v1beta/models/g:streamGenerateContent": b'[{"candidates": []}\n,\n{"candidates": []}]',
    "/api/chat": b'{"message":{"role":"assistant","content":"x"},"done":false}\n{"done":true}\n',
}
PREFIXES = {"/v1/messages": b"/anthropic", "/v1beta": b"/gemini", "/api/chat": b"/ollama"}
ENCODE: dict[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
    "unknown": lambda data: data[::-1],
    "gzip, deflate": lambda data: zlib.compress(gzip.compress(data)),
}


@pytest.mark.parametrize("path", ANSWERS)
@pytest.mark.parametrize("encoding", ENCODE)
def test_every_protocol_in_every_encoding_at_every_border(proxy, provider, answers, path, encoding) -> None:
    prefix = next((prefix for start, prefix in PREFIXES.items() if path.startswith(start)), b"")
    body = ENCODE[encoding](ANSWERS[path])
    kind = "application/json" if ANSWERS[path][:1] in b"[{" else "text/event-stream"
    headers = f"Content-Type: {kind}\r\nContent-Encoding: {encoding}\r\nconnection: close\r\n"
    coded = ENCODE[encoding](CHAT)
    request = post(path, coded, b"Content-Encoding: %s\r\n" % encoding.encode())
    for size in (1, 5, 1000):
        provider.script = answers.chunked([body[start : start + size] for start in range(0, len(body), size)], headers=headers)
        assert both(proxy, provider, request, prefix).endswith(b"0\r\n\r\n")
    provider.script = answers.sized(body, headers=headers)
    assert both(proxy, provider, request, prefix).endswith(body)


# --------------------------------------------------------------------------------------------- HTTP as it is really sent

BODY = b'{"choices": []}'
ODD = {
    "extensions of chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0;z\r\n\r\n",
    "trailers": b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n",
    "chunk sizes in capitals and with zeros": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n000A\r\n0123456789\r\n00\r\n\r\n",
    "interim answers": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "no length": b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: {}\n\ndata: [DONE]\n\n",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\n" + BODY,
    "no reason": b"HTTP/1.1 529 \r\nContent-Length: 0\r\n\r\n",
    "no reason and no space": b"HTTP/1.1 429\r\nContent-Length: 0\r\n\r\n",
    "headers with odd spaces and casing": b"HTTP/1.1 200 OK\r\ncOnTeNt-LeNgTh:2\r\nX-A:   b  \r\nX-Empty:\r\nset-cookie: a\r\nSet-Cookie: b\r\n\r\nok",
    "bytes beyond ASCII": b"HTTP/1.1 200 Gr\xc3\xbc\xc3\x9fe\r\nX-Name: \xfc\xff\r\nContent-Length: 2\r\n\r\nok",
    "204": b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n",
    "304 with a length": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n",
    "a length that lies: too long": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + BODY,
    "a length that lies: too short": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" + BODY,
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n" + BODY,
    "both framings": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "broken chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nxyz\r\n0\r\n\r\n",
    "cut in a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n30\r\nabc",
    "cut in the head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "folded header": b"HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 2\r\n\r\nok",
    "lines that end in LF": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "nothing": b"",
    "an upgrade": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n\x00\x01\xffwhatever",
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/files"])
def test_odd_and_broken_answers_are_what_they_are(proxy, provider, name, path) -> None:
    for size in (1, 7, 10_000):
        provider.script = [ODD[name][start : start + size] for start in range(0, len(ODD[name]), size)]
        assert both(proxy, provider, post(path)) == ODD[name]


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"PATCH", b"M-SEARCH"])
def test_every_method_passes(proxy, provider, method) -> None:
    provider.script = [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + (b"" if method == b"HEAD" else b"ok")]
    both(proxy, provider, method + b" /v1/models HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n")


def test_a_chunked_request_with_trailers_passes(proxy, provider, answers) -> None:
    provider.script = [b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (CHAT[:7], CHAT[7:]))
    request = b"POST /v1/chat/completions HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert b"413" in both(proxy, provider, request + chunks + b"0\r\nX-Sum: 1\r\n\r\n")


def test_requests_that_follow_each_other_on_one_connection_pass_in_order(proxy, provider, answers) -> None:
    provider.script = answers.sized(BODY)
    first = post("/v1/chat/completions").replace(b"connection: close\r\n", b"")
    received = both(proxy, provider, first + first + post("/v1/models"))
    assert received.count(BODY) == 3


def test_one_connection_may_go_to_several_providers(proxy, provider, answers) -> None:
    provider.script = answers.sized(BODY)
    port = provider.server_address[1]
    keep = post("/v1/chat/completions").replace(b"connection: close\r\n", b"")
    other = post("/anthropic/v1/messages").replace(b"connection: close\r\n", b"")
    before = len(provider.requests)
    received = exchange(proxy.port, keep + other + keep + post("/ollama/api/chat"), port)
    assert received.count(BODY) == 4
    assert [request.split()[1] for request in provider.requests[before:]] == [
        b"/v1/chat/completions", b"/v1/messages", b"/v1/chat/completions", b"/api/chat",
    ]  # fmt: skip


def test_a_client_that_waits_to_be_asked_for_its_body_is_asked(proxy, provider) -> None:
    head, body = post("/v1/chat/completions", head=b"Expect: 100-continue\r\n").split(b"\r\n\r\n")
    provider.script = [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"]
    both(proxy, provider, [head + b"\r\n\r\n", body])


def test_a_websocket_is_a_pipe_of_bytes(proxy, provider, hang_up) -> None:
    upgrade = (
        b"GET /v1/realtime?model=m HTTP/1.1\r\nHost: HOST\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    frames = [b"\x01\x03abc", b"\x89\x00", b"\x80\x03def", b"\x82\x7e\x01\x00" + bytes(256), b"\xff\xff no frame at all"]
    provider.script = [b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n" + frames[0], *frames[1:], hang_up]
    assert both(proxy, provider, upgrade).endswith(b"".join(frames))


@settings(database=None, deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300), st.lists(st.integers(1, 50), max_size=6), st.sampled_from(["/v1/chat/completions", "/v1/messages", "/v1/x"]))
def test_any_bytes_of_a_provider_pass(proxy, provider, data, sizes, path) -> None:
    script, position = [], 0
    for size in sizes:
        script.append(data[position : position + size])
        position += size
    provider.script = [*script, data[position:]]
    assert both(proxy, provider, post(path)) == data


def test_the_provider_is_left_when_the_client_goes(proxy, provider, answers) -> None:
    """A provider that goes on writing finds the connection broken: it need not make the rest of the answer."""
    broke = threading.Event()
    head, first, *_ = answers.chunked([b"data: 1\n\n"])

    class Writing:
        def __call__(self) -> None:
            if broke.wait(0.01):
                raise ConnectionAbortedError

    class Endless(list):
        def __iter__(self):
            yield head
            yield first
            try:
                while True:
                    yield Writing()
                    yield b"6\r\n: ping\r\n"
            finally:
                broke.set()

    provider.script = Endless()
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE) as client:
        client.sendall(post("/v1/chat/completions").replace(b"HOST", b"127.0.0.1"))
        assert client.recv(100)
    assert broke.wait(PATIENCE)
