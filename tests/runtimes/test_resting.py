"""A sandbox at rest, resized, and at its end: what the host measures of it and what it leaves. The same on both runtimes."""

import asyncio
import dataclasses
import sys
import time
from pathlib import Path

import pytest

from ephemeral_sandboxd.runtimes import Size
from ephemeral_sandboxd.runtimes.cgroups import Cgroup
from ephemeral_sandboxd.runtimes.gvisor import sweep

pytestmark = pytest.mark.asyncio(loop_scope="session")

SPIN = "import threading\ndef spin():\n    while True: pass\nthreading.Thread(target=spin, daemon=True).start()"


async def until(condition, what: str, seconds: float = 30.0) -> None:
    """Wait for ``condition`` to hold."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.02)


async def test_a_frozen_sandbox_uses_no_cpu_and_thaws_when_it_is_asked(boot, run, value):
    box = await boot()
    await run(box, SPIN)
    start = box.usage().cpu_ms
    await until(lambda: box.usage().cpu_ms > start + 100, "a spinning sandbox uses CPU")
    box.freeze()
    assert box.frozen
    await asyncio.sleep(0.1)  # the kernel freezes each thread at its next look
    before = box.usage().cpu_ms
    await asyncio.sleep(0.5)
    assert box.usage().cpu_ms == before
    assert await value(box, "'awake'") == "'awake'"
    assert not box.frozen
    await until(lambda: box.usage().cpu_ms > before + 50, "a thawed sandbox goes on")


async def test_a_frozen_sandbox_can_be_deleted(place, boot):
    box = await boot()
    box.freeze()
    await box.delete()
    assert place.left(box.name) == []


async def test_a_busy_sandbox_is_not_frozen(boot, run):
    box = await boot()
    answer = asyncio.create_task(run(box, "import time; time.sleep(0.5); 'done'"))
    await asyncio.sleep(0.1)
    box.freeze()
    assert not box.frozen
    assert (await answer).fields["result"] == "'done'"


async def test_usage_is_what_the_kernel_says(boot, run):
    box = await boot()
    before = box.usage()
    await run(box, "held = b'x' * (100 << 20)")
    during = box.usage()
    assert 90 << 20 < during.memory_bytes - before.memory_bytes < 160 << 20
    assert during.peak_bytes >= during.memory_bytes - (1 << 20)
    assert during.cpu_ms > before.cpu_ms
    await box.delete()
    with pytest.raises(OSError):
        box.usage()


async def test_a_running_sandbox_can_be_made_larger_and_smaller(boot, run, value):
    box = await boot(Size(1 << 30, 1.0, 64, 32 << 20))
    box.resize(dataclasses.replace(box.size, memory_bytes=256 << 20))
    box.resize(dataclasses.replace(box.size, memory_bytes=512 << 20, cpus=2.0))
    assert await value(box, "held = b'x' * (300 << 20); len(held)") == str(300 << 20)
    with pytest.raises(OSError, match=r"busy|in use"):
        box.resize(dataclasses.replace(box.size, memory_bytes=256 << 20))
    assert box.size.memory_bytes == 512 << 20
    assert (await run(box, "more = b'x' * (300 << 20)")).gone.verdict == "memory"


async def test_deleting_leaves_no_process_mount_group_directory_or_container(place, boot, run, tmp_path):
    box = await boot(slots={0: tmp_path, 5: tmp_path})
    await run(box, "import subprocess; child = subprocess.Popen(['sleep', '600'])")
    assert place.left(box.name) != []
    await box.delete()
    assert place.left(box.name) == []
    await box.delete()  # once more is no error


async def test_deleting_while_code_runs_ends_the_execution(boot, run):
    box = await boot()
    answer = asyncio.create_task(run(box, "print('on')\nwhile True: pass"))
    await asyncio.sleep(0.2)
    await box.delete()
    gone = (await answer).gone
    assert gone is not None
    assert gone.verdict == "killed"


async def test_a_start_that_is_cancelled_leaves_nothing(place):
    for number, delay in enumerate((0.0, 0.1, 0.4)):
        name = f"cancelled{number}"
        start = asyncio.create_task(place.runtime.start(name, Size(256 << 20, 1.0, 64, 32 << 20)))
        await asyncio.sleep(delay)
        start.cancel()
        await asyncio.wait([start])
        if not start.cancelled():  # it was faster
            await start.result().delete()
        assert place.left(name) == []


async def test_what_a_killed_daemon_left_is_found_and_removed(place, parts, tmp_path):
    run = tmp_path / "run"
    group = f"{place.group}-killed"
    arguments = [place.kind, str(parts.runsc), str(parts.rootfs), str(run), group, str(tmp_path)]
    daemon = await asyncio.create_subprocess_exec(
        sys.executable, str(Path(__file__).with_name("left_behind.py")), *arguments, stdout=asyncio.subprocess.PIPE)
    assert daemon.stdout
    said = await asyncio.wait_for(daemon.stdout.readline(), 90)
    daemon.kill()
    await daemon.wait()
    assert said == b"frozen\n"
    heir = dataclasses.replace(place, run=run, group=group, runtime=_successor(place, parts, run, group))
    await heir.runtime.check()
    assert heir.left() != []
    assert await heir.runtime.reap() == 1
    await until(lambda: sweep() == 0 and heir.left() == [], f"still there: {heir.left()}")
    assert await heir.runtime.reap() == 0
    Cgroup(group).remove()


async def test_reaping_spares_the_sandboxes_of_others(place, parts, box, value, tmp_path):
    other = _successor(place, parts, tmp_path / "run", f"{place.group}-other")
    await other.check()
    assert await other.reap() == 0
    assert await value(box, "'mine'") == "'mine'"


def _successor(place, parts, run, group):
    return type(place.runtime)(*((parts.runsc,) if place.kind == "gvisor" else ()), parts.rootfs, run, group)
