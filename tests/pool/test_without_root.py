"""sandboxd as an ordinary user: everything but the control groups, which root has handed over, it does by itself."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ephemeral import wire
from ephemeral.client import Client
from ephemeral.errors import EphemeralError
from ephemeral_sandboxd.runtimes import cgroups

USER = 23456  # nobody has to know it


@pytest.fixture
def home(state: Path, store: Path) -> Iterator[Path]:
    """A state directory of that user's, its store holding runsc and the root filesystem, and no more."""
    state.parent.chmod(0o755)
    own = state / "store"
    (own / "rootfs").mkdir(parents=True)
    shutil.copytree(store / "bin", own / "bin")
    record = own / "rootfs.json"
    shutil.copyfile(store / "rootfs.json", record)
    identity = record.read_text().partition('"id": "')[2].partition('"')[0]
    subprocess.run(["cp", "--archive", store / "rootfs" / identity, own / "rootfs"], check=True)
    subprocess.run(["chown", "--recursive", str(USER), state], check=True)
    yield state
    group = cgroups.Cgroup(cgroups.group_of(state))
    for entry in cgroups.ROOT.iterdir():
        if (entry / group.path.lstrip("/")).is_dir():
            (entry / group.path.lstrip("/")).rmdir()


def environ(home: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(home), "EPHEMERAL_STATE": str(home), "EPHEMERAL_SANDBOXD_PORT": "0", "EPHEMERAL_TOKEN": "x" * 32,
            "EPHEMERAL_RUNTIME": "gvisor", "EPHEMERAL_LOG": "WARNING"}


def command() -> list[str]:
    """sandboxd as that user. Where the interpreter lies in a home that only root may enter, it is shown there through an open one."""
    run = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", sys.executable, "-m", "ephemeral_sandboxd"]
    base = Path(sys.base_prefix).resolve()
    closed = [parent for parent in (base, *base.parents) if not parent.stat().st_mode & 0o001]
    if not closed:
        return run
    script = f"mount --bind '{base}' /mnt && mount -t tmpfs -o mode=755 none '{closed[-1]}' && mkdir -p '{base}' && mount --bind /mnt '{base}' && umount /mnt && exec \"$@\""
    return ["unshare", "--mount", "sh", "-c", script, "sh", *run]


def test_without_its_control_group_it_says_what_root_has_to_type(home: Path):
    refused = subprocess.run(command(), env=environ(home), capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 2, refused.stderr
    assert f"ephemeral delegate {USER}" in refused.stderr


def test_code_runs_frozen_limited_and_gone_at_the_end(home: Path):
    handed = subprocess.run([sys.executable, "-m", "ephemeral_sandboxd.delegate", str(USER)], env=environ(home), capture_output=True, text=True, check=True)
    assert cgroups.group_of(home) in handed.stdout
    process = subprocess.Popen(command(), env=environ(home))
    try:
        with Client(f"unix:{home}/sandboxd.sock") as client:
            deadline = time.monotonic() + 60
            while True:
                try:
                    host = client.host()
                    break
                except EphemeralError:
                    assert process.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
            assert host.isolation.startswith("gVisor")
            execution = client.execute(wire.ExecutionRequest(code="import os\nx = 20\nos.getuid()", session="user"))
            assert (execution.verdict, execution.result) == ("ok", "65534"), execution
            assert execution.cpu_ms is not None
            assert client.execute(wire.ExecutionRequest(code="x + 1", session="user")).result == "21"
            assert client.execute(wire.ExecutionRequest(code="x = bytearray(4 << 30)", session="greedy")).verdict in ("memory", "error")
            status = Path(f"/proc/{process.pid}/status").read_text()
            assert f"Uid:\t{USER}\t{USER}\t{USER}\t{USER}" in status
            groups = cgroups.children(cgroups.group_of(home))
            assert groups
            assert all(Path(f"/proc/{pid}").stat().st_uid == USER for group in groups for pid in cgroups.Cgroup(group).processes())
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert cgroups.children(cgroups.group_of(home)) == []
    assert list((home / "run" / "sandboxes").iterdir()) == []
