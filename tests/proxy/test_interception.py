"""For programs that only know HTTPS_PROXY: what is read, what is not, and over HTTP/1.1 and HTTP/2 nobody can tell."""

from __future__ import annotations

import base64
import importlib.util
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from ephemeral_certs.interception import Interception

_spec = importlib.util.spec_from_file_location("modern", Path(__file__).with_name("modern.py"))
assert _spec
assert _spec.loader
modern = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(modern)

PATIENCE = 30
BODY = b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "plot a sine"}]}'


@pytest.fixture(scope="module")
def house(tmp_path_factory, predictor, state, proxy_class) -> Iterator[SimpleNamespace]:
    """A provider on localhost, known to a proxy that has an authority for it, and another one that is not known."""
    folder, other_folder = tmp_path_factory.mktemp("provider"), tmp_path_factory.mktemp("other")
    provider, other = modern.ModernProvider(folder), modern.ModernProvider(other_folder)
    for one in (provider, other):
        modern.wait_for_port(one.port)
    interception = Interception.create(state / "certs", ["localhost"])
    proxy = proxy_class(
        f"https://localhost:{provider.port}", state, SSL_CERT_FILE=str(provider.ca), EPHEMERAL_INTERCEPT_PORT="0"
    )
    pattern = re.compile(r"http://127\.0\.0\.1:(\d+) for HTTPS_PROXY")
    for _ in range(3000):
        found = pattern.search("".join(proxy.log))
        if found:
            break
        threading.Event().wait(0.01)
    assert found, proxy.log
    port = int(found[1])
    yield SimpleNamespace(provider=provider, other=other, proxy=proxy, port=port, interception=interception)
    assert proxy.stop() == 0
    provider.close()
    other.close()
    for file in (state / "certs").iterdir():
        file.unlink()
    (state / "certs").rmdir()


def through(house, http2: bool = False, **options) -> httpx.Client:
    """A client that knows the proxy's address, credential and authority, and nothing else of it."""
    trusted = ssl.create_default_context(cafile=str(house.interception.ca))
    address = f"http://ephemeral:{house.interception.credential}@127.0.0.1:{house.port}"
    return httpx.Client(proxy=address, verify=trusted, http2=http2, trust_env=False, timeout=PATIENCE, **options)


def direct(provider, http2: bool = False) -> httpx.Client:
    return httpx.Client(verify=ssl.create_default_context(cafile=str(provider.ca)), http2=http2, trust_env=False, timeout=PATIENCE)


@pytest.mark.parametrize("http2", [False, True])
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/chat/completions?a=%20b"), ("GET", "/v1/models"), ("POST", "/anything"), ("HEAD", "/v1/models"), ("DELETE", "/x")],
)
def test_both_sides_see_what_they_would_have_seen_directly(house, answers, http2, method, path) -> None:
    provider = house.provider
    provider.pieces = [] if method == "HEAD" else answers.events()
    url = f"https://localhost:{provider.port}{path}"
    headers = {"Authorization": "Bearer sk-secret", "X-Odd": "b", "User-Agent": "probe/1"}
    got, seen = [], []
    for make in (lambda: direct(provider, http2), lambda: through(house, http2)):
        before = len(provider.seen)
        with make() as client:
            answer = client.request(method, url, content=BODY if method == "POST" else None, headers=headers)
        got.append((answer.http_version, answer.status_code, answer.headers.raw, answer.content))
        seen.append(provider.seen[before:])
    assert got[0] == got[1]
    assert seen[0] == seen[1]
    assert got[0][0] == ("HTTP/2" if http2 else "HTTP/1.1")


@pytest.mark.parametrize("http2", [False, True])
def test_its_conversations_are_heard(house, predictor, answers, http2) -> None:
    house.provider.pieces = answers.events()
    session = f"intercepted-{http2}"
    with through(house, http2) as client:
        answer = client.post(
            f"https://localhost:{house.provider.port}/v1/chat/completions", content=BODY, headers={"X-Session-Id": session}
        )
    assert answer.content == b"".join(answers.events())
    events = predictor.ended(session)
    assert "".join(event["text"] for event in events if event["kind"] == "code") == answers.CODE
    assert events[0]["provider"] == "openai"


@pytest.mark.parametrize("http2", [False, True])
def test_the_provider_learns_that_the_client_has_gone(house, http2) -> None:
    provider = house.provider
    provider.pieces, provider.endless = [b"data: 1\n\n"], True
    provider.gone.clear()
    try:
        with through(house, http2) as client:
            with client.stream("POST", f"https://localhost:{provider.port}/v1/chat/completions", content=BODY) as answer:
                assert next(answer.iter_raw()) == b"data: 1\n\n"
        assert provider.gone.wait(PATIENCE)
    finally:
        provider.endless = False


@pytest.mark.parametrize("http2", [False, True])
def test_every_other_host_is_tunnelled_untouched(house, http2) -> None:
    """Its own certificate arrives: ours would not be believed."""
    other = house.other
    other.pieces = [b"private"]
    address = f"http://ephemeral:{house.interception.credential}@127.0.0.1:{house.port}"
    theirs = ssl.create_default_context(cafile=str(other.ca))
    with httpx.Client(proxy=address, verify=theirs, http2=http2, trust_env=False, timeout=PATIENCE) as client:
        answer = client.get(f"https://localhost:{other.port}/v1/chat/completions")
    assert (answer.content, answer.http_version) == (b"private", "HTTP/2" if http2 else "HTTP/1.1")


def say(port: int, request: bytes) -> bytes:
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
        client.sendall(request)
        while piece := client.recv(65536):
            received += piece
    return received


def test_nobody_is_served_without_the_credential(house) -> None:
    connect = b"CONNECT localhost:%d HTTP/1.1\r\nHost: localhost\r\n" % house.provider.port
    for credential in (b"", b"Proxy-Authorization: Basic eDp5\r\n", b"Proxy-Authorization: Bearer x\r\n", b"Proxy-Authorization: \xff\r\n"):
        answer = say(house.port, connect + credential + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 407 ")
        assert b"Proxy-Authenticate: Basic" in answer
        assert b"ephemeral certs env" in answer


@pytest.mark.parametrize(
    "line", [b"GET http://example.com/ HTTP/1.1", b"GET / HTTP/1.1", b"CONNECT example.com HTTP/1.1", b"CONNECT :443 HTTP/1.1", b"CONNECT [::1 HTTP/1.1"]
)
def test_it_tunnels_https_and_nothing_else(house, line) -> None:
    credential = base64.b64encode(f"ephemeral:{house.interception.credential}".encode())
    answer = say(house.port, line + b"\r\nHost: example.com\r\nProxy-Authorization: Basic " + credential + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"HTTPS_PROXY" in answer


@pytest.mark.parametrize("data", [b"\r\n\r\n", b"x" * 300_000, b"GET / HTTP/9\r\n\r\n", b"CONNECT a:1 HTTP/1.1\r\nbad header\r\n\r\n"])
def test_what_is_no_request_is_refused(house, data) -> None:
    assert say(house.port, data).split(b" ")[1] in (b"400", b"431")


def test_a_host_that_cannot_be_reached_is_a_bad_gateway(house) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with through(house) as client, pytest.raises(httpx.ProxyError, match="502"):
            client.get(f"https://localhost:{unused.getsockname()[1]}/")


def test_a_client_that_does_not_trust_the_authority_gets_nothing(house) -> None:
    before = len(house.provider.seen)
    address = f"http://ephemeral:{house.interception.credential}@127.0.0.1:{house.port}"
    with httpx.Client(proxy=address, verify=ssl.create_default_context(), trust_env=False) as client, pytest.raises(httpx.ConnectError):
        client.get(f"https://localhost:{house.provider.port}/v1/models")
    assert len(house.provider.seen) == before


def test_the_official_client_works_with_the_variables_alone(house, predictor, answers) -> None:
    """The program knows nothing of us: HTTPS_PROXY and SSL_CERT_FILE do it."""
    house.provider.pieces = answers.events()
    program = (
        "import openai; client = openai.OpenAI(api_key='sk-x', default_headers={'X-Session-Id': 'variables'})\n"
        "stream = client.chat.completions.create(model='m', messages=[{'role': 'user', 'content': 'hi'}], stream=True)\n"
        "print(sum(1 for _ in stream))"
    )
    variables = {
        "PATH": "/usr/bin:/bin",
        "OPENAI_BASE_URL": f"https://localhost:{house.provider.port}/v1",
        "HTTPS_PROXY": f"http://ephemeral:{house.interception.credential}@127.0.0.1:{house.port}",
        "SSL_CERT_FILE": str(house.interception.bundle),
    }
    done = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 5
    predictor.ended("variables")


def test_http2_without_tls_is_understood_by_those_who_begin_with_it(house, answers) -> None:
    house.provider.pieces = answers.events()
    before = len(house.provider.seen)
    with httpx.Client(http1=False, http2=True, trust_env=False, timeout=PATIENCE) as client:
        answer = client.post(f"http://127.0.0.1:{house.proxy.port}/v1/chat/completions", content=BODY, headers={"X-Ephemeral-App": "x"})
        refused = client.get(f"http://127.0.0.1:{house.proxy.port}/nothing")
    assert (answer.status_code, answer.http_version) == (200, "HTTP/2")
    assert answer.content == b"".join(answers.events())
    [(version, _, path, headers, body)] = house.provider.seen[before:]
    assert (version, path, body) == ("2", "/v1/chat/completions", BODY)
    assert not [name for name, _ in headers if name.startswith(b"x-ephemeral")]
    assert refused.status_code == 404


@pytest.mark.parametrize("http2", [False, True])
def test_a_provider_that_cannot_be_reached_is_told_of_in_json(start_proxy, house, tmp_path, http2) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        proxy = start_proxy(f"https://localhost:{port}", tmp_path)
        with httpx.Client(http1=not http2, http2=http2, trust_env=False, timeout=PATIENCE) as client:
            answer = client.post(f"http://127.0.0.1:{proxy.port}/v1/chat/completions", content=BODY)
    assert (answer.status_code, answer.http_version) == (502, "HTTP/2" if http2 else "HTTP/1.1")
    assert answer.json()["error"]["code"] == "upstream_unreachable"
