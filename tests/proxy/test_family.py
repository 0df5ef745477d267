"""Bad days: whatever of the proxy dies, hangs or is fed poison, the traffic goes on."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import zstandard

PATIENCE = 30
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()


def ask(port: int, path: str = "/v1/chat/completions", method: str = "POST", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, path, BODY if method == "POST" else None, {k.replace("_", "-"): v for k, v in headers.items()})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def health(proxy) -> dict:
    return json.loads(ask(proxy.port, "/healthz", "GET")[1])


def children(proxy) -> list[int]:
    pid = proxy.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def reader_of(proxy) -> int:
    """It is the one that is nice."""
    return next(pid for pid in children(proxy) if os.getpriority(os.PRIO_PROCESS, pid) > os.getpriority(os.PRIO_PROCESS, 0))


def workers_of(proxy) -> list[int]:
    reader = reader_of(proxy)
    return [pid for pid in children(proxy) if pid != reader]


def pss(pid: int) -> int:
    """Bytes of memory that a process has to itself, or its share of it."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024


def test_workers_that_are_killed_are_replaced_and_nobody_is_refused(start_proxy, provider, answers, tmp_path, eventually) -> None:
    provider.script = answers.sized(b"{}")
    proxy = start_proxy(f"http://{provider.authority}", tmp_path, EPHEMERAL_PROXY_WORKERS="2")
    eventually(lambda: len(children(proxy)) == 3)
    for number in range(12):
        for victim in workers_of(proxy):
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        # No retry: the socket was open all the time, and whoever connects waits for the next worker.
        assert ask(proxy.port)[0] == 200, f"refused after kill {number}"
    eventually(lambda: health(proxy)["restarts"] >= 12)
    assert proxy.stop() == 0


def test_a_reader_that_is_killed_costs_events_and_nothing_else(start_proxy, provider, predictor, state, answers, eventually) -> None:
    provider.script = answers.sized(answers.whole())
    proxy = start_proxy(f"http://{provider.authority}", state)
    assert ask(proxy.port, X_Ephemeral_Session_Id="before-death")[0] == 200
    predictor.ended("before-death")
    old = reader_of(proxy)
    os.kill(old, signal.SIGKILL)
    assert ask(proxy.port)[0] == 200
    eventually(lambda: old not in children(proxy) and len(children(proxy)) >= 2)

    def heard_again() -> bool:
        assert ask(proxy.port, X_Ephemeral_Session_Id="after-death")[0] == 200
        return any(event["session"] == "after-death" for event in predictor.events)

    eventually(heard_again)
    assert proxy.stop() == 0


def test_a_reader_that_hangs_makes_the_oldest_copies_go_and_the_traffic_does_not_notice(
    start_proxy, provider, answers, tmp_path, eventually
) -> None:
    large = b"data: " + b"x" * 4_000_000 + b"\n\n"
    provider.script = answers.sized(large, headers="Content-Type: text/event-stream\r\n")
    proxy = start_proxy(f"http://{provider.authority}", tmp_path, EPHEMERAL_PROXY_WORKERS="1")
    eventually(lambda: len(children(proxy)) == 2)
    [worker] = workers_of(proxy)
    before = pss(worker)
    reader = reader_of(proxy)
    os.kill(reader, signal.SIGSTOP)
    try:
        for _ in range(16):
            assert ask(proxy.port) == (200, large)
        assert health(proxy)["copies_dropped"] > 0
        assert pss(worker) - before < 100 << 20
    finally:
        os.kill(reader, signal.SIGCONT)
    provider.script = answers.sized(b"{}")
    assert ask(proxy.port) == (200, b"{}")


POISON = {
    "a bomb of gzip": ("gzip", gzip.compress(bytes(200 << 20), 1)),
    "a bomb of zstd": ("zstd", zstandard.compress(bytes(200 << 20), 1)),
    "a line without an end": ("identity", b"data: " + b"[" * (6 << 20)),
    "very deep JSON": ("identity", b"data: " + b"[" * 100_000 + b"\n\n"),
    "many calls": ("identity", b"".join(
        b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":%d,"id":"c%d","function":{"name":"f","arguments":"{"}}]}}]}\n\n' % (n, n)
        for n in range(5000)
    )),
}  # fmt: skip


@pytest.mark.parametrize("name", POISON)
def test_poison_is_passed_on_and_hurts_nobody(proxy, provider, predictor, answers, name) -> None:
    coding, body = POISON[name]
    provider.script = answers.sized(body, headers=f"Content-Type: text/event-stream\r\nContent-Encoding: {coding}\r\n")
    assert ask(proxy.port, X_Ephemeral_Session_Id=f"poisoned-{len(body)}") == (200, body)
    provider.script = answers.sized(answers.whole())
    session = f"healthy-{len(body)}"
    assert ask(proxy.port, X_Ephemeral_Session_Id=session)[0] == 200
    predictor.ended(session)
    assert health(proxy)["crashed"] == 0


def test_memory_stays_flat_over_thousands_of_conversations(start_proxy, provider, predictor, state, answers, eventually) -> None:
    provider.script = answers.chunked(answers.events())
    proxy = start_proxy(f"http://{provider.authority}", state, EPHEMERAL_PROXY_WORKERS="1")

    def conversations(count: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=PATIENCE)
        for number in range(count):
            connection.request("POST", "/v1/chat/completions", BODY.replace(b"hi", b"hi %d" % number))
            assert connection.getresponse().read()
        connection.close()
        eventually(lambda: health(proxy)["events_sent"] == len(predictor.events) - heard)

    heard = len(predictor.events)
    conversations(500)
    before = {pid: pss(pid) for pid in children(proxy)}
    conversations(2000)
    for pid, was in before.items():
        assert pss(pid) - was < 8 << 20
    assert proxy.stop() == 0


def test_memory_stays_flat_over_a_websocket_that_carries_many_frames(start_proxy, provider, state, predictor, eventually) -> None:
    message = json.dumps({"type": "response.output_audio.delta", "delta": "A" * 2000}).encode()
    frame = b"\x81\x7e" + len(message).to_bytes(2, "big") + message
    upgraded = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    rounds = threading.Semaphore(0)
    provider.script = [upgraded, *[lambda: rounds.acquire(timeout=PATIENCE), frame * 2000] * 20, lambda: rounds.acquire(timeout=PATIENCE)]
    proxy = start_proxy(f"http://{provider.authority}", state, EPHEMERAL_PROXY_WORKERS="1")

    def carry(client: socket.socket) -> None:
        rounds.release()
        count = 2000 * len(frame)
        while count > 0:
            piece = client.recv(min(count, 65536))
            assert piece
            count -= len(piece)

        def read() -> bool:
            counted = health(proxy)
            return counted["frames_read"] == counted["frames_sent"]

        eventually(read)

    with socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE) as client:
        client.sendall(
            b"GET /v1/realtime HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        for _ in range(5):
            carry(client)
        before = {pid: pss(pid) for pid in children(proxy)}
        for _ in range(15):
            carry(client)
        for pid, was in before.items():
            assert pss(pid) - was < 8 << 20
        rounds.release()
    assert health(proxy)["unreadable"] == 0
    assert health(proxy)["copies_dropped"] == 0


def test_a_provider_may_have_a_port_of_its_own(start_proxy, provider, answers, tmp_path, eventually) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    provider.script = answers.sized(b"Ollama is running")
    start_proxy(
        "https://127.0.0.1:9", tmp_path, EPHEMERAL_UPSTREAMS=f"ollama=http://{provider.authority}/base", EPHEMERAL_PROXY_PORTS=f"ollama={port}"
    )
    for path in ("/", "/healthz", "/v1/models", "/api/tags"):
        assert ask(port, path, "GET") == (200, b"Ollama is running")
        assert provider.requests[-1].startswith(f"GET /base{path} HTTP/1.1\r\n".encode())


def test_sockets_that_it_was_handed_outlive_it(provider, answers, tmp_path) -> None:
    """systemd's protocol: descriptors from 3 on. Whoever connects between two lives is served by the second."""
    provider.script = answers.sized(b"{}")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        environment = {
            **os.environ, "EPHEMERAL_STATE": str(tmp_path), "EPHEMERAL_UPSTREAM": f"http://{provider.authority}",
            "LISTEN_FDS": "1", "LISTEN_FDNAMES": "proxy",
        }  # fmt: skip

        def live() -> subprocess.Popen:
            return subprocess.Popen(
                [sys.executable, "-m", "ephemeral_proxy"], env=environment, stderr=subprocess.PIPE, text=True, pass_fds=[3],
                preexec_fn=lambda: os.dup2(listener.fileno(), 3),
            )  # fmt: skip

        first = live()
        assert ask(port)[0] == 200
        first.kill()
        first.communicate(timeout=PATIENCE)  # its children hold the pipe: they are gone, too
        answered: list[int] = []
        asking = threading.Thread(target=lambda: answered.append(ask(port)[0]))
        asking.start()
        second = live()
        asking.join(PATIENCE)
        assert answered == [200]
        second.terminate()
        second.communicate(timeout=PATIENCE)
        assert second.returncode == 0


def test_a_parent_that_is_killed_leaves_nobody_behind(start_proxy, provider, tmp_path, eventually) -> None:
    proxy = start_proxy(f"http://{provider.authority}", tmp_path)
    eventually(lambda: len(children(proxy)) >= 2)
    family = children(proxy)
    proxy.process.kill()
    proxy.process.wait(PATIENCE)
    eventually(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in family))
