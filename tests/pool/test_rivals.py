"""What the rivals install is given back: the bytes when its session is over, the names when the daemon stops, all of it after a kill."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ephemeral import wire
from ephemeral_sandboxd.commands import run
from ephemeral_sandboxd.pool.installed import Installed

HOLDER = """
import sys, time
from pathlib import Path
from ephemeral_sandboxd.pool.installed import Installed

mine = Installed(Path(sys.argv[1])).folder()
(mine / "cache").mkdir()
(mine / "cache" / "file").write_text("left")
print(mine, flush=True)
time.sleep(600)
"""


def taken(folder: Path) -> int:
    """Bytes of the files below ``folder``; -1 without any file."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return sum(path.stat().st_size for path in files) if files else -1


async def until(true, seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.02)


@pytest.mark.asyncio(loop_scope="module")
async def test_what_a_cold_install_took_is_given_back_when_its_session_ends(house, store):
    known = set((store / "rivals").glob("run-*"))
    house.daemon.open_session(wire.SessionRequest(id="cold-bytes", policy="none"))
    assert (await house.run("import humanize\nprint(humanize.intcomma(12345))", session="cold-bytes")).stdout == "12,345\n"
    mine, = set((store / "rivals").glob("run-*")) - known
    cache, = mine.iterdir()
    assert taken(cache) > 10_000
    assert (await house.run("import humanize.time\nprint(humanize.naturalsize(1))", session="cold-bytes")).verdict == "ok"  # while the session lasts they stay
    await house.daemon.end_session("cold-bytes")
    await until(lambda: taken(cache) == 0)


async def test_emptying_follows_no_symbolic_link_and_closing_deletes_all(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("kept")
    installed = Installed(tmp_path / "rivals")
    cache = installed.folder() / "cache"
    (cache / "deep").mkdir(parents=True)
    (cache / "deep" / "file").write_text("12345")
    (cache / "file").symlink_to(kept / "file")
    (cache / "folder").symlink_to(kept)
    await installed.empty(cache)
    assert (cache / "deep" / "file").read_bytes() == b""
    await installed.close()
    assert list((tmp_path / "rivals").iterdir()) == []
    assert (kept / "file").read_text() == "kept"


async def test_what_a_killed_daemon_left_goes_at_the_next_start_and_what_a_running_one_has_stays(tmp_path):
    root = tmp_path / "rivals"
    holders = [subprocess.Popen([sys.executable, "-c", HOLDER, str(root)], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        killed, running = (Path(holder.stdout.readline().strip()) for holder in holders)
        assert killed.is_dir()
        holders[0].send_signal(signal.SIGKILL)
        holders[0].wait(10)
        (root / "cache").mkdir()  # of the policy `cached`: meant to stay
        next_one = Installed(root)
        await until(lambda: not killed.exists())
        assert (running / "cache" / "file").read_text() == "left"
        assert (root / "cache").is_dir()
        await next_one.close()
    finally:
        for holder in holders:
            holder.kill()
            holder.wait(10)
            holder.stdout.close()


async def test_a_command_whose_caller_is_cancelled_does_not_run_on(tmp_path):
    told = tmp_path / "pid"
    command = asyncio.create_task(run("sh", "-c", f"echo $$ > {told}.new && mv {told}.new {told} && exec sleep 600", timeout=600))
    await until(told.exists)
    command.cancel()
    await asyncio.gather(command, return_exceptions=True)
    with pytest.raises(ProcessLookupError):
        os.kill(int(told.read_text()), 0)
