"""What sandboxd refuses to open, and what it tells systemd."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path

import pytest
from aiohttp import web

from ephemeral_cli.host import certifying
from ephemeral_sandboxd import notify
from ephemeral_sandboxd.api import serve
from ephemeral_sandboxd.api.remote import Gate
from ephemeral_sandboxd.errors import BadRequest, Refused, Unavailable


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "203.0.113.7", "sandbox.example.com"])
async def test_no_plain_port_is_opened_to_other_machines(state: Path, host: str):
    with pytest.raises(Refused, match="can be reached from other machines") as caught:
        await serve(web.Application(), state / "s.sock", 0, host)
    assert "over TLS with client certificates only" in caught.value.hint


async def test_listening_without_certificates_says_what_to_type(state: Path):
    with pytest.raises(Unavailable, match="EPHEMERAL_LISTEN is set") as caught:
        Gate(state)
    assert "ephemeral host certify" in caught.value.hint
    with pytest.raises(Refused):
        await serve(web.Application(), state / "s.sock", 0, listen="0.0.0.0:0")


@pytest.mark.parametrize("listen", ["8790", ":8790", "*:8790", "[::]", "::1:8790", "[127.0.0.1]:0", "localhost:1", "0.0.0.0:65536", "0.0.0.0:x"])
async def test_an_address_that_is_none_is_refused(state: Path, listen: str):
    certifying.certify(state, ["127.0.0.1"])
    with pytest.raises(BadRequest, match="EPHEMERAL_LISTEN"):
        await serve(web.Application(), state / "s.sock", 0, listen=listen, gate=Gate(state))


async def test_a_taken_port_is_one_sentence(state: Path):
    certifying.certify(state, ["127.0.0.1"])
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(Unavailable, match="is taken"):
            await serve(web.Application(), state / "s.sock", 0, listen=f"127.0.0.1:{other.getsockname()[1]}", gate=Gate(state))


async def test_sandboxd_itself_refuses_to_start_so(state: Path):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ephemeral_sandboxd", stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "EPHEMERAL_STATE": str(state), "EPHEMERAL_LISTEN": "0.0.0.0:0", "EPHEMERAL_RUNTIME": "docker"},
    )  # fmt: skip
    _, said = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 2
    assert "ephemeral host certify" in said.decode()
    assert "Traceback" not in said.decode()


async def test_systemd_hears_that_we_are_ready_and_that_the_loop_turns(state: Path, monkeypatch: pytest.MonkeyPatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(state / "notify"))
        systemd.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(state / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "20000")
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
        notify.tell("READY=1")
        watchdog = asyncio.create_task(notify.watchdog())
        loop = asyncio.get_running_loop()
        heard = [await asyncio.wait_for(loop.sock_recv(systemd, 100), 60) for _ in range(3)]
        watchdog.cancel()
    assert heard == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]


async def test_elsewhere_nobody_is_told_anything(monkeypatch: pytest.MonkeyPatch):
    notify.tell("READY=1")
    await asyncio.wait_for(notify.watchdog(), 60)
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/notify")
    notify.tell("READY=1")
