"""Real neighbours for the proxy: a provider that sends exactly the bytes it is told to, a predictor, and the process itself."""

from __future__ import annotations

import json
import os
import re
import signal
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from recording import Predictor

PATIENCE = 30.0
"""Seconds that anything may take on a slow machine before a test calls it lost."""


class Provider(socketserver.ThreadingTCPServer):
    """Answers every request with ``script``: pieces of raw bytes, and functions to call in between. ``requests`` holds
    what came, byte for byte."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), ProviderConnection)
        self.script: list[bytes | Callable[[], object]] = []
        self.requests: list[bytes] = []
        self.context = context
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def authority(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is what some tests are about."""

    def get_request(self):
        connection, address = super().get_request()
        if self.context:
            connection.settimeout(PATIENCE)
            connection = self.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address


class ProviderConnection(socketserver.StreamRequestHandler):
    server: Provider
    disable_nagle_algorithm = True

    def handle(self) -> None:
        while True:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                line = self.rfile.readline()
                if not line:
                    return
                head += line
            length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            body = self.rfile.read(int(length[1])) if length else b""
            self.server.requests.append(head + body)
            for step in self.server.script:
                if callable(step):
                    step()
                else:
                    self.wfile.write(step)
                    self.wfile.flush()
            if b"connection: close" in head.lower():
                return


class Proxy:
    """``python -m ephemeral_proxy`` on a port of its own choosing."""

    def __init__(self, upstream: str, state: Path, **environment: str) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("EPHEMERAL_")}
        environment = {
            **inherited,
            "EPHEMERAL_STATE": str(state),
            "EPHEMERAL_PROXY_PORT": "0",
            "EPHEMERAL_UPSTREAM": upstream,
            **environment,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ephemeral_proxy"], env=environment, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr
        self.log = [self.process.stderr.readline()]
        found = re.search(r"http://127\.0\.0\.1:(\d+)/v1", self.log[0])
        assert found, f"the proxy did not start: {self.log[0]}{self.process.communicate(timeout=PATIENCE)[1]}"
        self.port = int(found[1])
        threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True).start()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


@pytest.fixture(scope="session")
def provider() -> Iterator[Provider]:
    with Provider() as server:
        yield server
        server.shutdown()


@pytest.fixture(scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="session")
def predictor(state: Path) -> Iterator[Predictor]:
    with Predictor(state / "predictor.sock") as server:
        yield server
        server.shutdown()


@pytest.fixture(scope="session")
def proxy(provider: Provider, predictor: Predictor, state: Path) -> Iterator[Proxy]:
    others = " ".join(f"{name}=http://{provider.authority}" for name in ("anthropic", "gemini", "ollama"))
    running = Proxy(f"http://{provider.authority}", state, EPHEMERAL_UPSTREAMS=others)
    yield running
    assert running.stop() == 0
    assert [line for line in running.log[1:] if line.strip()] == [], "the proxy had something to complain about"


@pytest.fixture
def start_proxy() -> Iterator[Callable[..., Proxy]]:
    """Starts further proxies, and stops them after the test."""
    started: list[Proxy] = []

    def start(upstream: str, state: Path, **environment: str) -> Proxy:
        started.append(Proxy(upstream, state, **environment))
        return started[-1]

    yield start
    for proxy in started:
        if proxy.process.poll() is None:
            proxy.process.kill()
            proxy.process.wait(PATIENCE)


@pytest.fixture(scope="session")
def proxy_class() -> type[Proxy]:
    """For fixtures that are shared by more than one test."""
    return Proxy


class Answers:
    """Answers of a provider, as raw HTTP."""

    CODE = 'import numpy as np\nprint("héllo 🐍", np.pi)\n'

    @staticmethod
    def events(text: str = "Let me see. ", code: str | None = CODE, finish: str = "tool_calls") -> list[bytes]:
        """The server-sent events of one answer: text in words, then one tool call whose arguments come in small pieces."""

        def event(delta: dict, reason: str | None = None) -> bytes:
            chunk = {
                "id": "chatcmpl-1",
                "object": "chat.completion.chunk",
                "created": 1,
                "model": "m",
                "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
            }
            return b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n"

        events = [event({"role": "assistant", "content": ""})]
        events += [event({"content": word}) for word in re.findall(r"\S+\s*", text)]
        if code is not None:
            call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "run_python", "arguments": ""}}
            events.append(event({"tool_calls": [call]}))
            arguments = json.dumps({"packages": ["x"], "code": code})
            for start in range(0, len(arguments), 5):
                piece = {"index": 0, "function": {"arguments": arguments[start : start + 5]}}
                events.append(event({"tool_calls": [piece]}))
        events.append(event({}, finish))
        events.append(b"data: [DONE]\n\n")
        return events

    @staticmethod
    def whole(text: str = "Let me see. ", code: str = CODE) -> bytes:
        """The same answer as one JSON document."""
        call = {
            "id": "call_1",
            "type": "function",
            "function": {"name": "run_python", "arguments": json.dumps({"code": code})},
        }
        message = {"role": "assistant", "content": text, "tool_calls": [call]}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        answer = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        return json.dumps(answer).encode()

    @staticmethod
    def chunked(
        pieces: list[bytes], status: str = "200 OK", headers: str = "Content-Type: text/event-stream\r\n"
    ) -> list:
        """A chunked answer, one chunk a piece."""
        head = f"HTTP/1.1 {status}\r\nServer: test\r\n{headers}X-Odd-Casing: kept\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunks = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece]
        return [head.encode(), *chunks, b"0\r\n\r\n"]

    @staticmethod
    def sized(body: bytes, status: str = "200 OK", headers: str = "Content-Type: application/json\r\n") -> list:
        head = f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
        return [head.encode(), body]


@pytest.fixture
def answers() -> type[Answers]:
    return Answers


@pytest.fixture
def hang_up() -> Callable[[], None]:
    """A step of a provider's script that drops the connection."""

    def step() -> None:
        raise ConnectionAbortedError

    return step


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], None]:
    """Waits, for a bounded time, until something holds."""

    def wait(holds: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, "it did not come true in time"
            time.sleep(0.01)

    return wait
