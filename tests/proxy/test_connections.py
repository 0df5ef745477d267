"""Connections at their edges: bytes that come early, late, without an end or not at all, and what the proxy holds of them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import os
import re
import resource
import select
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import h2.connection
import httpx
import pytest
import trustme
from recording import Predictor

from ephemeral_certs.interception import Interception

PATIENCE = 30
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "plot a sine"}]}).encode()
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
MEMORY_BYTES = 20 << 20
"""What a worker may need more for one odd connection."""


class Stage:
    """A provider that hands each of its connections to ``act``; what that leaves unread or open is closed when it returns."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.act: Callable[[socket.socket], object] = lambda connection: None
        self.context = context
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.settimeout(PATIENCE)
                threading.Thread(target=self._run, args=(connection, self.act), daemon=True).start()

    def _run(self, connection: socket.socket, act: Callable[[socket.socket], object]) -> None:
        with contextlib.suppress(OSError, EOFError):  # the other side may go at any time
            if self.context:
                connection = self.context.wrap_socket(connection, server_side=True)
            act(connection)
        connection.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def dial(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def head(connection: socket.socket) -> bytes:
    """The bytes of a head, and none of what follows it."""
    received = b""
    while not received.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            raise EOFError
        received += byte
    return received


def exactly(connection: socket.socket, count: int) -> bytes:
    """``count`` bytes, or those that came before the end."""
    received = bytearray()
    while len(received) < count and (piece := connection.recv(min(count - len(received), 1 << 20))):
        received += piece
    return bytes(received)


def everything(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def send_until_held(connection: socket.socket, data: bytes) -> int:
    """Send until nobody takes more for a second. Returns how much was sent."""
    sent = 0
    connection.setblocking(False)
    while sent < len(data) and select.select([], [connection], [], 1.0)[1]:
        sent += connection.send(data[sent : sent + (1 << 18)])
    connection.settimeout(PATIENCE)
    return sent


def post(path: str, length: int, host: str = "localhost", extra: str = "") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: {host}\r\n{extra}Content-Length: {length}\r\n\r\n".encode()


def get(path: str, extra: str = "", method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n".encode()


def upgrade(path: str) -> bytes:
    return get(path, "Upgrade: websocket\r\nConnection: Upgrade\r\n")


def say(port: int, request: bytes) -> bytes:
    with dial(port) as client:
        client.sendall(request)
        return everything(client)


def ask(port: int, session: str, path: str = "/v1/chat/completions", body: bytes = BODY) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("POST", path, body, {"X-Ephemeral-Session-Id": session})
        return connection.getresponse().read()
    finally:
        connection.close()


def health(proxy) -> dict:
    return json.loads(say(proxy.port, get("/healthz")).partition(b"\r\n\r\n")[2])


def children(proxy) -> list[int]:
    pid = proxy.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def reader_of(proxy) -> int:
    """It is the one that is nice, as soon as it has begun."""
    for _ in range(3000):
        for pid in children(proxy):
            with contextlib.suppress(ProcessLookupError):
                if os.getpriority(os.PRIO_PROCESS, pid) > os.getpriority(os.PRIO_PROCESS, 0):
                    return pid
        threading.Event().wait(0.01)
    raise AssertionError("there is no reader")


def worker_of(proxy) -> int:
    reader = reader_of(proxy)
    return next(pid for pid in children(proxy) if pid != reader)


def pss(pid: int) -> int:
    """Bytes of memory that a process has to itself, or its share of it."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024


def server_context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*names).configure_cert(context)
    return context


@pytest.fixture(scope="module")
def house(short_directory, proxy_class) -> Iterator[SimpleNamespace]:
    """A proxy with one worker before a provider without TLS (``plain``, also at /base and /gemini) and one with it (``secure``,
    at /tls), which intercepts the latter."""
    state = short_directory / "connections"
    state.mkdir()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(state / "provider-ca.pem"))
    plain, secure = Stage(), Stage(server_context(authority, "localhost"))
    interception = Interception.create(state / "certs", ["localhost"])
    address = f"http://127.0.0.1:{plain.port}"
    with Predictor(state / "predictor.sock") as heard:
        proxy = proxy_class(
            address,
            state,
            EPHEMERAL_PROXY_WORKERS="1",
            EPHEMERAL_UPSTREAMS=f"tls=https://localhost:{secure.port} base={address}/api gemini={address}",
            EPHEMERAL_INTERCEPT_PORT="0",
            SSL_CERT_FILE=str(state / "provider-ca.pem"),
        )
        for _ in range(3000):
            found = re.search(r":(\d+) for HTTPS_PROXY", "".join(proxy.log))
            if found:
                break
            threading.Event().wait(0.01)
        assert found, proxy.log
        yield SimpleNamespace(
            plain=plain, secure=secure, proxy=proxy, predictor=heard, state=state, authority=authority,
            intercept=int(found[1]), interception=interception,
        )  # fmt: skip
        assert proxy.stop() == 0
        assert [line for line in proxy.log if "listening on" not in line] == [], "the proxy had something to complain about"
        heard.shutdown()
    plain.close()
    secure.close()


@pytest.fixture(params=["directly", "through the proxy"])
def connect(request: pytest.FixtureRequest, house) -> Iterator[Callable[..., tuple[socket.socket, str]]]:
    """Connects a client to a provider: the same has to come of it either way. Gives the socket, and what paths begin with."""
    with contextlib.ExitStack() as stack:

        def to(tls: bool = False) -> tuple[socket.socket, str]:
            if request.param != "directly":
                return stack.enter_context(dial(house.proxy.port)), "/tls/v1" if tls else "/v1"
            client = dial((house.secure if tls else house.plain).port)
            if tls:
                trusted = ssl.create_default_context()
                house.authority.configure_trust(trusted)
                client = trusted.wrap_socket(client, server_hostname="localhost")
            return stack.enter_context(client), "/v1"

        crashed = health(house.proxy)["crashed"]
        yield to
        assert health(house.proxy)["crashed"] == crashed, house.proxy.log


with_and_without_tls = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])


# ------------------------------------------------------------------------------------------------------ early bytes


@with_and_without_tls
def test_requests_that_are_sent_at_once_are_answered_in_order(house, connect, tls) -> None:
    def act(connection: socket.socket) -> None:
        while True:
            path = head(connection).split()[1]
            content = path + b" " + exactly(connection, 5)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(content), content))

    (house.secure if tls else house.plain).act = act
    client, base = connect(tls)
    client.sendall(b"".join(post(f"{base}/chat/completions?{number}", 5) + b"body%d" % number for number in range(4)))
    for number in range(4):
        assert head(client)
        content = b"/v1/chat/completions?%d body%d" % (number, number)
        assert exactly(client, len(content)) == content


@with_and_without_tls
def test_bytes_that_come_together_with_an_upgrade_reach_the_provider(house, connect, tls) -> None:
    frame = b"\x81\x85\0\0\0\0hello"
    seen: list[bytes] = []

    def act(connection: socket.socket) -> None:
        head(connection)
        connection.sendall(UPGRADED + b"\x81\x02yo")
        seen.append(exactly(connection, len(frame)))
        connection.sendall(b"\x81\x03bye")

    (house.secure if tls else house.plain).act = act
    client, base = connect(tls)
    client.sendall(upgrade(f"{base}/realtime") + frame)
    assert everything(client) == UPGRADED + b"\x81\x02yo\x81\x03bye"
    assert seen == [frame]


def test_a_large_request_may_be_sent_ahead_of_its_turn(house, connect) -> None:
    size, turn = 3_000_000, threading.Event()
    seen: list[int] = []

    def act(connection: socket.socket) -> None:
        head(connection)
        turn.wait(PATIENCE)
        connection.sendall(OK)
        head(connection)
        seen.append(len(exactly(connection, size)))
        connection.sendall(OK)

    house.plain.act = act
    client, base = connect()
    data = get(f"{base}/a") + post(f"{base}/b", size) + b"z" * size
    sent = send_until_held(client, data)
    turn.set()
    client.sendall(data[sent:])
    assert exactly(client, 2 * len(OK)) == OK + OK
    assert seen == [size]


@pytest.mark.parametrize("kind", ["upload", "websocket"])
def test_what_a_provider_sends_before_it_reads_arrives_whole(house, connect, kind) -> None:
    """Neither side waits for the other: the one that has to be read first is."""
    size = 24_000_000
    seen: list[int] = []

    def act(connection: socket.socket) -> None:
        head(connection)
        connection.sendall(UPGRADED if kind == "websocket" else b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        connection.sendall(b"\x82\x7f" + (size - 10).to_bytes(8, "big") + b"x" * (size - 10))
        seen.append(len(exactly(connection, size)))

    house.plain.act = act
    client, base = connect()
    client.sendall(upgrade(f"{base}/realtime") if kind == "websocket" else post(f"{base}/anything", size))
    assert head(client)

    def send() -> None:
        with contextlib.suppress(OSError):
            client.sendall(b"\x82\xff" + (size - 14).to_bytes(8, "big") + b"y" * (size - 10))

    sending = threading.Thread(target=send)
    sending.start()
    assert len(exactly(client, size)) == size
    sending.join(PATIENCE)
    everything(client)  # the provider has read what it was sent before it closes
    assert seen == [size]


# --------------------------------------------------------------------------------------------- odd answers, and ends


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 200 OK\r\nX-Long: a\r\n b\r\nContent-Length: 2\r\n\r\nok", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok"],
    ids=["folded line", "lines that end with LF"],
)
def test_after_an_answer_that_cannot_be_read_the_next_request_is_answered(house, connect, answer) -> None:
    def act(connection: socket.socket) -> None:
        while True:
            head(connection)
            connection.sendall(answer)

    house.plain.act = act
    client, base = connect()
    for _ in range(3):
        client.sendall(get(f"{base}/models"))
        assert exactly(client, len(answer)) == answer


@with_and_without_tls
def test_a_reset_by_the_provider_is_a_reset_for_the_client(house, connect, tls) -> None:
    """An answer whose length nobody said would seem to be whole otherwise."""
    answer, arrived = b"HTTP/1.1 200 OK\r\n\r\npart of it", threading.Event()

    def act(connection: socket.socket) -> None:
        head(connection)
        connection.sendall(answer)
        arrived.wait(PATIENCE)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    (house.secure if tls else house.plain).act = act
    client, base = connect(tls)
    client.sendall(get(f"{base}/models"))
    assert exactly(client, len(answer)) == answer
    arrived.set()
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_a_client_that_closes_its_sending_side_counts_as_gone(house) -> None:
    ends: list[bytes] = []

    def act(connection: socket.socket) -> None:
        head(connection)
        ends.append(connection.recv(1))

    house.plain.act = act
    with dial(house.proxy.port) as client:
        client.sendall(get("/v1/models"))
        client.shutdown(socket.SHUT_WR)
        assert everything(client) == b""
    for _ in range(3000):
        if ends:
            break
        threading.Event().wait(0.01)
    assert ends == [b""]


# ------------------------------------------------------------------------------------------------------ interception


def tunnel(house, name: str) -> ssl.SSLSocket:
    """A TLS connection to the provider through the other port, whose handshake asks for ``name``."""
    credential = base64.b64encode(f"ephemeral:{house.interception.credential}".encode()).decode()
    client = dial(house.intercept)
    client.sendall(
        f"CONNECT localhost:{house.secure.port} HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic {credential}\r\n\r\n".encode()
    )
    assert head(client).startswith(b"HTTP/1.1 200 ")
    trusted = ssl.create_default_context(cafile=str(house.interception.ca))
    trusted.check_hostname = name == "localhost"
    return trusted.wrap_socket(client, server_hostname=name)


def test_a_provider_that_closes_an_idle_connection_closes_the_clients(house) -> None:
    stands = threading.Event()
    house.secure.act = lambda connection: stands.wait(PATIENCE)
    with tunnel(house, "localhost") as client:
        stands.set()
        assert client.recv(1) == b""


def test_the_host_that_was_asked_for_is_verified_whatever_the_handshake_says(house) -> None:
    seen: list[bytes] = []

    def act(connection: socket.socket) -> None:
        seen.append(head(connection))
        connection.sendall(OK)

    house.secure.act = act
    asked: list[str | None] = []
    right, wrong = house.secure.context, server_context(house.authority, "other.test")
    right.sni_callback = lambda connection, name, context: asked.append(name)
    try:
        with tunnel(house, "other.test") as client:
            client.sendall(get("/v1/models"))
            assert exactly(client, len(OK)) == OK
        assert asked == ["localhost"]
        house.secure.context = wrong
        # The name that the client says fits the certificate, and is not the one that is wanted.
        with contextlib.suppress(OSError), tunnel(house, "other.test") as client:
            client.sendall(get("/v1/models"))
            assert OK not in everything(client)
        assert len(seen) == 1
    finally:
        right.sni_callback = None
        house.secure.context = right


# ------------------------------------------------------------------------------------------------------------ HTTP/2


async def test_many_streams_of_one_connection_are_under_way_at_once(house) -> None:
    count = 12
    together = threading.Barrier(count)

    def act(connection: socket.socket) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            head(connection)
            together.wait(PATIENCE)
            connection.sendall(OK)

    house.plain.act = act
    only_one = httpx.Limits(max_connections=1)
    async with httpx.AsyncClient(http1=False, http2=True, trust_env=False, timeout=PATIENCE, limits=only_one) as client:
        url = f"http://127.0.0.1:{house.proxy.port}/v1/models"
        answered = await asyncio.gather(*(client.get(url) for _ in range(count)))
    assert [(one.status_code, one.http_version, one.content) for one in answered] == [(200, "HTTP/2", b"ok")] * count


# ------------------------------------------------------------------------------------------------------------ memory


@contextlib.contextmanager
def nobody_accepts() -> Iterator[int]:
    """A port whose backlog is full: whoever connects now waits."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@contextlib.contextmanager
def nobody_shakes_hands() -> Iterator[int]:
    stage, over = Stage(), threading.Event()
    stage.act = lambda connection: over.wait(PATIENCE)
    yield stage.port
    over.set()
    stage.close()


@pytest.mark.parametrize("provider", [nobody_accepts, nobody_shakes_hands])
def test_an_upload_that_has_nowhere_to_go_is_not_held_in_memory(start_proxy, tmp_path, provider) -> None:
    with provider() as port:
        proxy = start_proxy(f"https://127.0.0.1:{port}", tmp_path, EPHEMERAL_PROXY_WORKERS="1")
        assert health(proxy)["status"] == "ok"
        worker = worker_of(proxy)
        before = pss(worker)
        with dial(proxy.port) as client:
            client.sendall(post("/v1/anything", 60_000_000))
            send_until_held(client, b"y" * 60_000_000)
            assert health(proxy)["connections"] == 3, "the upload is not under way"
            assert pss(worker) - before < MEMORY_BYTES


def test_an_answer_that_a_client_of_http2_does_not_read_is_not_held_in_memory(start_proxy, tmp_path) -> None:
    stage, over = Stage(), threading.Event()
    held = threading.Event()

    def act(connection: socket.socket) -> None:
        head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        send_until_held(connection, b"x" * 100_000_000)
        held.set()
        over.wait(PATIENCE)

    stage.act = act
    proxy = start_proxy(f"http://127.0.0.1:{stage.port}", tmp_path, EPHEMERAL_PROXY_WORKERS="1")
    assert health(proxy)["status"] == "ok"
    worker = worker_of(proxy)
    before = pss(worker)
    with dial(proxy.port) as client:
        speaker = h2.connection.H2Connection()
        speaker.initiate_connection()
        speaker.send_headers(
            1, [(":method", "GET"), (":path", "/v1/anything"), (":scheme", "http"), (":authority", "localhost")], end_stream=True
        )
        client.sendall(speaker.data_to_send())
        assert held.wait(PATIENCE)
        assert pss(worker) - before < MEMORY_BYTES
        over.set()
    stage.close()


def test_the_head_of_a_chunk_that_has_no_end_passes_and_is_not_held(start_proxy, tmp_path) -> None:
    stage, seen, size = Stage(), threading.Event(), 60_000_000
    begin = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;"

    def act(connection: socket.socket) -> None:
        head(connection)
        connection.sendall(begin + b"a" * size)
        seen.wait(PATIENCE)

    stage.act = act
    proxy = start_proxy(f"http://127.0.0.1:{stage.port}", tmp_path, EPHEMERAL_PROXY_WORKERS="1")
    assert health(proxy)["status"] == "ok"
    worker = worker_of(proxy)
    before = pss(worker)
    with dial(proxy.port) as client:
        client.sendall(get("/v1/anything"))
        assert len(exactly(client, len(begin) + size)) == len(begin) + size
        assert pss(worker) - before < MEMORY_BYTES
        seen.set()
    stage.close()


# -------------------------------------------------------------------------------------------------------- the copies


def test_after_an_overflow_what_was_broken_ends_and_what_comes_later_is_heard_whole(
    start_proxy, provider, predictor, state, answers, eventually
) -> None:
    first, flood, last = threading.Event(), threading.Event(), threading.Event()
    script = answers.chunked(answers.events())
    piece = b": " + b"x" * 1_000_000 + b"\n\n"
    chunk = b"%x\r\n%s\r\n" % (len(piece), piece)
    proxy = start_proxy(f"http://{provider.authority}", state, EPHEMERAL_PROXY_WORKERS="1")

    def began(session: str) -> list[dict]:
        return predictor.wait(lambda events: any(event["kind"] == "assistant_text" for event in events), session)

    with dial(proxy.port) as short, dial(proxy.port) as long:
        provider.script = [*script[:4], lambda: last.wait(PATIENCE), *script[4:]]
        short.sendall(post("/v1/chat/completions", len(BODY), extra="X-Ephemeral-Session-Id: overflow-short\r\n") + BODY)
        began("overflow-short")
        provider.script = [
            *script[:4], lambda: first.wait(PATIENCE), chunk * 3, lambda: flood.wait(PATIENCE), *[chunk] * 60, *script[4:],
        ]  # fmt: skip
        long.sendall(post("/v1/chat/completions", len(BODY), extra="X-Ephemeral-Session-Id: overflow-long\r\n") + BODY)
        began("overflow-long")
        begun = len(b"".join(script[:4]))
        reader = reader_of(proxy)
        os.kill(reader, signal.SIGSTOP)
        try:
            first.set()  # more than the socket to the reader takes: the rest waits in the worker
            assert exactly(long, begun + 3 * len(chunk)).endswith(chunk)
            last.set()  # so the end of this one waits there, and is among the oldest
            assert exactly(short, len(b"".join(script))) == b"".join(script)
            flood.set()
            assert exactly(long, 60 * len(chunk) + len(b"".join(script[4:]))).endswith(script[-1])
            assert health(proxy)["copies_dropped"] > 0
        finally:
            os.kill(reader, signal.SIGCONT)
    predictor.ended("overflow-long")
    predictor.ended("overflow-short")
    provider.script = script
    sessions = []

    def heard() -> bool:
        sessions.append(f"overflow-later-{len(sessions)}")
        assert ask(proxy.port, sessions[-1]) == b"".join(answers.events())
        return any(event["session"] in sessions for event in predictor.events)

    eventually(heard)  # while much waits, nothing further is copied
    events = predictor.ended(next(event["session"] for event in predictor.events if event["session"] in sessions))
    assert "".join(event["text"] for event in events if event["kind"] == "code") == answers.CODE
    assert proxy.stop() == 0


def test_a_body_of_the_longest_that_is_read_is_read(house, answers) -> None:
    """The provider takes it as fast as it comes; the reader, which is slower, gets all of it."""
    text = b"x" * (31 << 20)
    body = BODY.replace(b"plot a sine", text)
    answer = b"".join(answers.sized(answers.whole()))

    def act(connection: socket.socket) -> None:
        head(connection)
        assert len(exactly(connection, len(body))) == len(body)
        connection.sendall(answer)

    house.plain.act = act
    before = health(house.proxy)
    assert ask(house.proxy.port, "large", body=body) == answers.whole()
    events = house.predictor.ended("large")
    assert "".join(event["text"] for event in events if event["kind"] == "code") == answers.CODE
    after = health(house.proxy)
    for name in ("copies_dropped", "copies_failed", "unreadable"):
        assert after[name] == before[name]


def test_an_ordinary_request_that_offers_http2_is_heard(house, answers, connect) -> None:
    """Some clients do that with every first request; providers go on with HTTP/1.1."""
    extra = "Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\nUpgrade: h2c\r\n"
    seen: list[bytes] = []
    answer = b"".join(answers.sized(answers.whole()))

    def act(connection: socket.socket) -> None:
        seen.append(head(connection) + exactly(connection, len(BODY)))
        connection.sendall(answer)

    house.plain.act = act
    host = f"127.0.0.1:{house.plain.port}"
    client, base = connect()
    directly = client.getpeername()[1] == house.plain.port
    ours = "" if directly else "X-Ephemeral-Session-Id: h2c\r\n"
    client.sendall(post(f"{base}/chat/completions", len(BODY), host=host, extra=extra + ours) + BODY)
    assert exactly(client, len(answer)) == answer
    assert seen == [post("/v1/chat/completions", len(BODY), host=host, extra=extra) + BODY]
    if not directly:
        house.predictor.ended("h2c")


def test_a_key_in_the_address_goes_to_the_provider_and_nowhere_else(house) -> None:
    key = "AIzaSyNobodyElseMayHaveThis"
    path = f"/v1beta/models/gemini-pro:generateContent?key={key}"
    text = json.dumps({"candidates": [{"content": {"role": "model", "parts": [{"text": "Hello."}]}, "finishReason": "STOP"}]}).encode()
    seen: list[bytes] = []

    def act(connection: socket.socket) -> None:
        request = head(connection)
        length = re.search(rb"Content-Length: (\d+)", request)
        assert length
        exactly(connection, int(length[1]))
        seen.append(request)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))

    house.plain.act = act
    body = json.dumps({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}).encode()
    assert ask(house.proxy.port, "gemini-key", f"/gemini{path}", body) == text
    house.predictor.ended("gemini-key")
    assert seen[0].startswith(f"POST {path} HTTP/1.1\r\n".encode())
    assert key not in json.dumps(house.predictor.events)
    assert key not in "".join(house.proxy.log)
    kept = [file for file in house.state.rglob("*") if file.is_file()]
    assert "identity.db" in [file.name for file in kept]
    assert not [file for file in kept if key.encode() in file.read_bytes()]


# --------------------------------------------------------------------------------------------------------- who is let in


@pytest.mark.parametrize("path", ["/base/../x", "/base/%2e%2e/x", "/base/v1/..", "/base/v1/%2E./x", "/base/v1/..%2fx", "/base/..?a"])
def test_a_path_does_not_lead_out_of_a_providers_base(house, path) -> None:
    asked = threading.Event()
    house.plain.act = lambda connection: asked.set()
    assert say(house.proxy.port, get(path)).startswith(b"HTTP/1.1 400 ")
    assert not asked.is_set()


def test_dots_that_lead_nowhere_pass(house) -> None:
    seen: list[bytes] = []

    def act(connection: socket.socket) -> None:
        seen.append(head(connection).splitlines()[0])
        connection.sendall(OK)

    house.plain.act = act
    for path in ("/v1/a..b/x", "/v1/x?up=/../y", "/..."):
        assert say(house.proxy.port, get(f"/base{path}")) == OK
        assert seen[-1] == f"GET /api{path} HTTP/1.1".encode()


def test_a_picture_of_a_foreign_page_is_refused(house) -> None:
    """Browsers send no Origin with it."""
    answer = say(house.proxy.port, get("/v1/models", "Referer: http://example.com/\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n"))
    assert answer.startswith(b"HTTP/1.1 403 ")


def test_the_health_has_no_body_for_those_who_want_none(house) -> None:
    answer = say(house.proxy.port, get("/healthz", method="HEAD"))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\n")
    assert answer.count(b"\r\n\r\n") == 1


# ------------------------------------------------------------------------------------------------------- the processes


def test_more_connections_than_the_usual_limit_of_descriptors(start_proxy, tmp_path) -> None:
    """700 requests are 1400 sockets: the worker raises what it was started with."""
    count, needed = 700, 4096
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.fail(f"this test needs {needed} descriptors, and the hard limit is {hard}: raise it with `ulimit -Hn {needed}`")
    stage, all_came, answered = Stage(), threading.Event(), threading.Event()
    came: list[bytes] = []

    def act(connection: socket.socket) -> None:
        came.append(head(connection))
        if len(came) == count:
            all_came.set()
        answered.wait(PATIENCE)
        connection.sendall(OK)

    stage.act = act
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
        proxy = start_proxy(f"http://127.0.0.1:{stage.port}", tmp_path, EPHEMERAL_PROXY_WORKERS="1")
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(dial(proxy.port)) for _ in range(count)]
            for client in clients:
                client.sendall(get("/v1/models"))
            assert all_came.wait(PATIENCE), f"{len(came)} of {count} came"
            answered.set()
            for client in clients:
                assert exactly(client, len(OK)) == OK
    finally:
        answered.set()
        stage.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert proxy.stop() == 0


def test_counters_go_on_when_the_reader_is_replaced(start_proxy, provider, predictor, state, answers, eventually) -> None:
    proxy = start_proxy(f"http://{provider.authority}", state, EPHEMERAL_PROXY_WORKERS="1")
    provider.script = answers.sized(b"no gzip at all", headers="Content-Type: application/json\r\nContent-Encoding: gzip\r\n")
    ask(proxy.port, "counted-unreadable")
    provider.script = answers.sized(answers.whole())
    ask(proxy.port, "counted-before")
    predictor.ended("counted-before")
    eventually(lambda: health(proxy)["events_sent"] and health(proxy)["unreadable"])
    before, old = health(proxy), reader_of(proxy)
    os.kill(old, signal.SIGKILL)
    eventually(lambda: old not in children(proxy))

    def heard() -> bool:
        ask(proxy.port, "counted-after")
        return any(event["session"] == "counted-after" for event in predictor.events)

    eventually(heard)
    eventually(lambda: health(proxy)["events_sent"] > before["events_sent"])
    after = health(proxy)
    assert {name: count for name, count in before.items() if isinstance(count, int) and after[name] < count} == {}


def test_a_reader_that_may_have_less_memory_than_it_would_takes_what_it_may(
    start_proxy, provider, predictor, state, answers, eventually
) -> None:
    limit = 3 << 30
    provider.script = answers.sized(answers.whole())
    proxy = start_proxy(f"http://{provider.authority}", state, EPHEMERAL_PROXY_WORKERS="1")
    resource.prlimit(proxy.process.pid, resource.RLIMIT_AS, (limit, limit))
    old = reader_of(proxy)
    os.kill(old, signal.SIGKILL)  # the next one is forked under the limit

    def heard() -> bool:
        ask(proxy.port, "little-memory")
        return any(event["session"] == "little-memory" for event in predictor.events)

    eventually(lambda: old not in children(proxy))
    eventually(heard)
    assert resource.prlimit(reader_of(proxy), resource.RLIMIT_AS) == (limit, limit)
    assert health(proxy)["restarts"] == 1
    assert proxy.stop() == 0


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"EPHEMERAL_PROXY_WORKERS": "-1"}, "EPHEMERAL_PROXY_WORKERS"),
        ({"EPHEMERAL_PROXY_WORKERS": "1000"}, "EPHEMERAL_PROXY_WORKERS"),
        ({"LISTEN_FDS": "3", "LISTEN_FDNAMES": "proxy:x:y"}, "LISTEN_FDS"),
    ],
    ids=lambda value: " ".join(f"{key}={one}" for key, one in value.items()) if isinstance(value, dict) else "",
)
def test_settings_that_cannot_be_are_refused_in_a_sentence(tmp_path, settings, name) -> None:
    environment = {**os.environ, "EPHEMERAL_STATE": str(tmp_path), "EPHEMERAL_PROXY_PORT": "0", **settings}
    done = subprocess.run([sys.executable, "-m", "ephemeral_proxy"], env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert name in line
