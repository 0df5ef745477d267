"""The supervisor, over small real processes."""

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ephemeral_cli.errors import CommandError
from ephemeral_cli.supervise import Service, Supervisor, answers, free_port

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
