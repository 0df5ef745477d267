"""The supervisor, over small real processes."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ephemeral_cli import rooms
from ephemeral_cli.errors import CommandError
from ephemeral_cli.supervise import Listener, Service, Supervisor, answers, free_port

SERVER = textwrap.dedent("""
    import http.server, os, signal, sys
    name, port, trail = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    def stop(*_):
        with open(trail, "a") as file: file.write(f"stopped {name}\\n")
        os._exit(0)
    signal.signal(signal.SIGTERM, stop)
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200); self.end_headers(); self.wfile.write(b"ok")
        def log_message(self, *_): pass
    with open(trail, "a") as file: file.write(f"started {name}\\n")
    http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
""")


def server(name: str, trail: Path) -> Service:
    port = free_port()
    return Service(name, [sys.executable, "-c", SERVER, name, str(port), str(trail)], f"http://127.0.0.1:{port}/healthz", port, f"EPHEMERAL_{name.upper()}_PORT")


async def until(condition, seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if await found if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] == "Z"


async def test_all_answer_once_started_and_stop_in_reverse_order(tmp_path: Path) -> None:
    trail = tmp_path / "trail"
    services = [server("first", trail), server("second", trail)]
    async with Supervisor(tmp_path / "state", services) as supervisor:
        assert [await answers(service.health) for service in services] == [True, True]
        pids = [supervisor.pid("first"), supervisor.pid("second")]
    assert trail.read_text().splitlines()[-2:] == ["stopped second", "stopped first"]
    assert all(gone(pid) for pid in pids)


async def test_what_dies_is_started_again_and_said_in_one_sentence(tmp_path: Path) -> None:
    service = server("mortal", tmp_path / "trail")
    said: list[str] = []
    async with Supervisor(tmp_path / "state", [service], say=said.append) as supervisor:
        before = supervisor.pid("mortal")
        os.kill(before, signal.SIGKILL)
        await until(lambda: supervisor.pid("mortal") != before)
        await until(lambda: answers(service.health))
    assert len(said) == 1
    assert "mortal ended (SIGKILL)" in said[0]


async def test_one_that_cannot_start_is_an_error_with_its_last_words_and_leaves_nothing(tmp_path: Path) -> None:
    good = server("good", tmp_path / "trail")
    bad = Service("bad", [sys.executable, "-c", "import sys; sys.exit('the disk is on fire')"], f"http://127.0.0.1:{free_port()}/")
    supervisor = Supervisor(tmp_path / "state", [good, bad])
    with pytest.raises(CommandError, match=r"bad ended at its start.*the disk is on fire"):
        await supervisor.start()
    assert not await answers(good.health)


async def test_a_taken_port_names_the_setting_and_starts_nothing(tmp_path: Path) -> None:
    service = server("proxy", tmp_path / "trail")
    with socket.socket() as other:
        other.bind(("127.0.0.1", service.port))
        other.listen()
        with pytest.raises(CommandError, match=f"port {service.port}, wanted by proxy, is taken") as raised:
            await Supervisor(tmp_path / "state", [service]).start()
    assert "EPHEMERAL_PROXY_PORT" in raised.value.hint
    assert raised.value.exit_code == 2
    assert not (tmp_path / "trail").exists()


async def test_state_token_and_logs_are_for_their_owner_only(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with Supervisor(state, [server("one", tmp_path / "trail")]) as supervisor:
        token = (state / "token").read_text()
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (state, state / "token", supervisor.log("one"))}
    assert modes == {"state": 0o700, "token": 0o600, "one.log": 0o600}
    assert len(token.strip()) >= 32
    async with Supervisor(state, []):
        assert (state / "token").read_text() == token


async def test_a_log_that_has_grown_large_is_put_aside_at_the_start(tmp_path: Path) -> None:
    logs = tmp_path / "state/logs"
    logs.mkdir(parents=True)
    (logs / "one.log").write_bytes(b"x" * (9 << 20))
    async with Supervisor(tmp_path / "state", []):
        assert not (logs / "one.log").exists()
        assert (logs / "one.log.1").exists()


async def test_a_supervisor_that_is_killed_leaves_no_child(tmp_path: Path) -> None:
    port = free_port()
    program = textwrap.dedent(f"""
        import asyncio, sys
        from pathlib import Path
        from ephemeral_cli.supervise import Service, Supervisor
        async def main():
            service = Service("child", [sys.executable, "-c", {SERVER!r}, "child", "{port}", {str(tmp_path / 'trail')!r}], "http://127.0.0.1:{port}/")
            async with Supervisor(Path({str(tmp_path / 'state')!r}), [service]) as supervisor:
                print(supervisor.pid("child"), flush=True)
                await asyncio.sleep(3600)
        asyncio.run(main())
    """)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(await asyncio.to_thread(parent.stdout.readline))
        parent.kill()
    await until(lambda: gone(child))


# ------------------------------------------------------------------------------------------------- sockets handed on

HANDED = textwrap.dedent("""
    import json, os, select, socket
    listeners = [socket.socket(fileno=3 + number) for number in range(int(os.environ["LISTEN_FDS"]))]
    told = {name: os.environ[name] for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")}
    while True:  # one connection at a time: no more than one is in hand when it is killed
        for ready in select.select(listeners, [], [])[0]:
            connection, _ = ready.accept()
            with connection:
                try:
                    request = b""
                    while b"\\r\\n\\r\\n" not in request:
                        piece = connection.recv(4096)
                        if not piece: break
                        request += piece
                    body = json.dumps({**told, "pid": os.getpid(), "port": ready.getsockname()[1]}).encode()
                    connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\nConnection: close\\r\\n\\r\\n" % len(body) + body)
                except OSError:
                    pass
""")


def handed(name: str, *names: str, program: str = HANDED) -> Service:
    listen = tuple(Listener(called, free_port(), f"EPHEMERAL_{called.upper()}_PORT") for called in names)
    port = listen[0].port
    return Service(name, [sys.executable, "-c", program], f"http://127.0.0.1:{port}/healthz", port, listen[0].setting, listen=listen)


async def ask(port: int) -> dict[str, str | int]:
    """One request, tried once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        if not head:
            raise ConnectionResetError("closed without an answer")
        return json.loads(body)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def sockets_of(pid: int) -> set[str]:
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(descriptor))
    return {target for target in found if target.startswith("socket:")}


async def test_nobody_is_refused_while_a_service_that_was_killed_is_started_again(tmp_path: Path) -> None:
    service = handed("proxy", "proxy")
    kills = 3
    refused, lost, answered_by = [], [], set()

    async def client(done: asyncio.Event) -> None:
        while not done.is_set():
            try:
                async with asyncio.timeout(60):
                    answered_by.add((await ask(service.port))["pid"])
            except ConnectionRefusedError as problem:
                refused.append(problem)
            except OSError as problem:
                lost.append(problem)

    async with Supervisor(tmp_path / "state", [service]) as supervisor:
        done = asyncio.Event()
        async with asyncio.TaskGroup() as clients:
            for _ in range(8):
                clients.create_task(client(done))
            for _ in range(kills):
                pid = supervisor.pid("proxy")
                await until(lambda pid=pid: pid in answered_by)
                os.kill(pid, signal.SIGKILL)
                await until(lambda pid=pid: supervisor.pid("proxy") != pid)
            await until(lambda: supervisor.pid("proxy") in answered_by)
            done.set()
    assert refused == []
    assert len(answered_by) == kills + 1
    assert len(lost) <= kills  # those that the dead ones had in hand


async def test_sockets_are_handed_on_as_systemd_does_it_and_to_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_FDS", "1")  # of whoever started us
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    other, service = server("other", tmp_path / "trail"), handed("proxy", "proxy", "anthropic", "intercept")
    async with Supervisor(tmp_path / "state", [other, service]) as supervisor:
        pid = supervisor.pid("proxy")
        for place in service.listen:
            assert await ask(place.port) == {
                "LISTEN_FDS": "3", "LISTEN_PID": str(pid), "LISTEN_FDNAMES": "proxy:anthropic:intercept", "pid": pid, "port": place.port,
            }  # fmt: skip
        assert len(sockets_of(pid)) == 3
        assert not sockets_of(supervisor.pid("other")) & sockets_of(pid)
        assert b"LISTEN_" not in Path(f"/proc/{supervisor.pid('other')}/environ").read_bytes()
    for place in service.listen:
        with pytest.raises(ConnectionRefusedError):
            await ask(place.port)


async def test_a_taken_port_among_those_to_be_held_names_its_setting(tmp_path: Path) -> None:
    service = handed("proxy", "proxy", "intercept")
    with socket.socket() as other:
        other.bind(("127.0.0.1", service.listen[1].port))
        other.listen()
        with pytest.raises(CommandError, match=f"port {service.listen[1].port}, wanted by proxy, is taken") as raised:
            await Supervisor(tmp_path / "state", [service]).start()
    assert "EPHEMERAL_INTERCEPT_PORT" in raised.value.hint
    with pytest.raises(ConnectionRefusedError):
        await ask(service.port)


async def test_one_that_ends_at_its_start_is_told_at_once_though_its_socket_accepts(tmp_path: Path) -> None:
    service = handed("proxy", "proxy", program="import sys; sys.exit('no such provider')")
    with pytest.raises(CommandError, match=r"proxy ended at its start.*no such provider"):
        await Supervisor(tmp_path / "state", [service]).start()
    missing = Service("proxy", [str(tmp_path / "missing")], service.health, service.port, "", listen=service.listen)
    with pytest.raises(CommandError, match=r"proxy ended at its start.*missing: No such file"):
        await Supervisor(tmp_path / "state", [missing]).start()


async def test_the_first_restart_is_at_once_and_those_of_a_crash_loop_wait_longer_and_longer(tmp_path: Path) -> None:
    said: list[str] = []
    async with Supervisor(tmp_path / "state", [handed("mortal", "mortal")], say=said.append) as supervisor:
        for _ in range(3):
            pid = supervisor.pid("mortal")
            os.kill(pid, signal.SIGKILL)
            await until(lambda pid=pid: supervisor.pid("mortal") != pid)
    assert ["at once" in said[0], "in 0.1 s" in said[1], "in 0.2 s" in said[2]] == [True, True, True]


def test_the_proxy_s_ports_are_held_open_and_no_other_room_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPHEMERAL_PROXY_PORT", "18787")
    monkeypatch.setenv("EPHEMERAL_PROXY_PORTS", "anthropic=18791 ollama=18792")
    monkeypatch.setenv("EPHEMERAL_INTERCEPT_PORT", "18786")
    ports = rooms.Ports.configured()

    def held() -> dict[str, list[tuple[str, int]]]:
        return {room.name: [(place.name, place.port) for place in room.listen] for room in rooms.services(tmp_path, ports) if room.listen}

    without = [("proxy", 18787), ("anthropic", 18791), ("ollama", 18792)]
    assert held() == {"proxy": without}
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs/authority.pem").touch()
    assert held() == {"proxy": [*without, ("intercept", 18786)]}
    assert rooms.environment(tmp_path, ports)["EPHEMERAL_PROXY_PORTS"] == "anthropic=18791 ollama=18792"
    free = rooms.Ports.free()
    assert [place.name for place in rooms.services(tmp_path, free)[-1].listen] == ["proxy"]
    assert rooms.environment(tmp_path, free)["EPHEMERAL_PROXY_PORTS"] == ""


def test_a_provider_s_port_that_is_none_is_said_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPHEMERAL_PROXY_PORTS", "anthropic=none")
    with pytest.raises(CommandError, match="EPHEMERAL_PROXY_PORTS gives anthropic the port 'none'"):
        rooms.Ports.configured()
