"""A Docker engine for the peers: the one that answers, else a private one, gone without trace afterwards.

Run as a program (``python -m ephemeral_sandboxd.bench.engine FOLDER``) it is the private engine's guardian: a subreaper between the
bench and dockerd, as an init would be, so that shims which dockerd leaves behind are collected; it takes everything down when the
bench ends, also by SIGKILL.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.errors import DockerException

from ephemeral_sandboxd import mounts
from ephemeral_sandboxd.bench.place import NotHere
from ephemeral_sandboxd.runtimes.gvisor import FLAGS

START_SECONDS = 60
STOP_SECONDS = 30
TIMEOUT_SECONDS = 300
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


@dataclass
class Engine:
    client: docker.DockerClient
    version: str
    runtimes: tuple[str, ...]
    """Names of its OCI runtimes."""
    private: bool


@contextlib.asynccontextmanager
async def engine(runsc: Path) -> AsyncIterator[Engine]:
    """The engine at DOCKER_HOST, else a private one that knows ``runsc``. Raises place.NotHere where neither can be had."""
    client = await asyncio.to_thread(_running)
    if client:
        try:
            yield await asyncio.to_thread(_ask, client, False)
        finally:
            client.close()
        return
    if not shutil.which("dockerd"):
        raise NotHere("no engine: none answers at DOCKER_HOST, and there is no dockerd to start (apt-get install docker.io)")
    # Its name is a containerd namespace, too: hexadecimal, as mkdtemp's underscores are not allowed there everywhere.
    folder = Path(tempfile.gettempdir()) / f"ephemeral-bench-engine-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o700)
    _configure(folder, runsc)
    guardian = _start(folder)
    try:
        client = await asyncio.to_thread(_connect, folder, guardian)
        try:
            yield await asyncio.to_thread(_ask, client, True)
        finally:
            client.close()
    finally:
        guardian.terminate()
        await asyncio.to_thread(guardian.wait, 2 * STOP_SECONDS)


def _running() -> docker.DockerClient | None:
    """The machine's own, when it can see this machine's directories."""
    if not (os.environ.get("DOCKER_HOST") or "unix://").startswith("unix://"):
        return None
    try:
        return docker.from_env(timeout=TIMEOUT_SECONDS)
    except DockerException:
        return None


def _ask(client: docker.DockerClient, private: bool) -> Engine:
    facts = client.info()
    return Engine(client, str(facts["ServerVersion"]), tuple(facts["Runtimes"]), private)


def _configure(folder: Path, runsc: Path) -> None:
    configuration = {
        "hosts": [f"unix://{folder}/docker.sock"], "data-root": f"{folder}/data", "exec-root": f"{folder}/exec", "pidfile": f"{folder}/pid",
        "bridge": "none", "iptables": False, "ip6tables": False, "cgroup-parent": f"/{folder.name}",
        # A system-wide containerd is shared where there is one: keep out of its engine's way.
        "containerd-namespace": folder.name, "containerd-plugins-namespace": f"{folder.name}-plugins",
        "runtimes": {"runsc": {"path": str(runsc), "runtimeArgs": list(FLAGS)}},
    }
    (folder / "daemon.json").write_text(json.dumps(configuration))


def _start(folder: Path) -> subprocess.Popen[bytes]:
    """The guardian and its dockerd. From the main thread: the guardian ends with the thread that started it."""
    return subprocess.Popen([sys.executable, "-m", __name__, str(folder)], stdin=subprocess.DEVNULL)


def _connect(folder: Path, guardian: subprocess.Popen[bytes]) -> docker.DockerClient:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return docker.DockerClient(base_url=f"unix://{folder}/docker.sock", timeout=TIMEOUT_SECONDS)
        except DockerException:
            if time.monotonic() > deadline or guardian.poll() is not None:
                raise NotHere(f"no engine: dockerd did not start within {START_SECONDS} s: {_last_words(folder)}") from None
            time.sleep(0.1)


def _last_words(folder: Path) -> str:
    with contextlib.suppress(OSError):
        return (folder / "log").read_text(errors="replace")[-300:].strip()
    return "it left no log"


# ------------------------------------------------------------------------------------------------------------- guardian


def guard(folder: Path) -> None:
    """Keep dockerd until SIGTERM, which also comes when our parent dies; then remove all that it made."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    # Ctrl-C reaches all of a terminal's processes: the bench has to stop before its engine does.
    heard = {signal.SIGTERM, signal.SIGCHLD}
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, heard)
    with open(folder / "log", "wb") as log:
        dockerd = subprocess.Popen(["dockerd", f"--config-file={folder}/daemon.json"], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                   start_new_session=True, preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, heard))
    while signal.sigwait(heard) == signal.SIGCHLD:
        if dockerd.pid in _collect():
            break  # it ended by itself: the log says why
    with contextlib.suppress(ProcessLookupError):
        os.kill(dockerd.pid, signal.SIGTERM)
    # Engine, containerd and shims are children of ours now, or of those that are.
    deadline = time.monotonic() + STOP_SECONDS
    while _children() and time.monotonic() < deadline:
        _collect()
        time.sleep(0.05)
    while left := _children():
        for child in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        time.sleep(0.05)
        _collect()
    _remove(folder)


def _children() -> list[int]:
    return [int(pid) for pid in Path("/proc/thread-self/children").read_text().split()]


def _collect() -> list[int]:
    """Wait for the dead; their process ids."""
    dead = []
    with contextlib.suppress(ChildProcessError):
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            dead.append(pid)
    return dead


def _remove(folder: Path) -> None:
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        place = Path(line.split()[4])
        if folder in place.parents:
            mounts.unmount(place)
    shutil.rmtree(folder, ignore_errors=True)
    root = Path("/sys/fs/cgroup")
    for group in (root / folder.name, *root.glob(f"*/{folder.name}")):  # version 2, version 1
        for directory, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(directory)


if __name__ == "__main__":
    guard(Path(sys.argv[1]))
