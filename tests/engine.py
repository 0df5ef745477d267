"""A private Docker engine for tests: its own socket, data, containerd namespace and control group, gone without trace afterwards.

Run as a program it is the engine's guardian: a subreaper between the tests and dockerd, as an init would be, so that
shims which dockerd leaves behind are collected; it takes everything down when the tests end, also by SIGKILL.
"""

from __future__ import annotations

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
from collections.abc import Iterator
from pathlib import Path

import docker

START_SECONDS = 60
STOP_SECONDS = 30


class Engine:
    """``host`` is what DOCKER_HOST wants; ``client`` talks to it."""

    def __init__(self, folder: Path, runsc: Path, flags: tuple[str, ...]):
        self.folder = folder
        self.host = f"unix://{folder}/docker.sock"
        configuration = {
            "hosts": [self.host], "data-root": f"{folder}/data", "exec-root": f"{folder}/exec", "pidfile": f"{folder}/pid",
            "bridge": "none", "iptables": False, "ip6tables": False, "cgroup-parent": f"/{folder.name}",
            # A system-wide containerd is shared where there is one: keep out of its engine's way.
            "containerd-namespace": folder.name, "containerd-plugins-namespace": f"{folder.name}-plugins",
            "runtimes": {"runsc": {"path": str(runsc), "runtimeArgs": list(flags)}},
        }
        (folder / "daemon.json").write_text(json.dumps(configuration))
        self._guardian = subprocess.Popen([sys.executable, __file__, str(folder)])
        try:
            self.client = self._connect()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        if hasattr(self, "client"):
            self.client.close()
        self._guardian.terminate()
        self._guardian.wait(STOP_SECONDS * 2)

    def _connect(self) -> docker.DockerClient:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return docker.DockerClient(base_url=self.host, timeout=120)
            except docker.errors.DockerException:
                if time.monotonic() > deadline or self._guardian.poll() is not None:
                    words = (self.folder / "log").read_text(errors="replace")[-1500:]
                    raise AssertionError(f"dockerd did not start within {START_SECONDS} s: {words}") from None
                time.sleep(0.1)


@contextlib.contextmanager
def engine(runsc: Path, flags: tuple[str, ...]) -> Iterator[Engine]:
    """Start dockerd with ``runsc`` registered as runtime ``runsc``. Fails, and says what to type, where there is no dockerd."""
    if not shutil.which("dockerd"):
        raise AssertionError("there is no dockerd: apt-get install docker.io")
    # Its name is a containerd namespace, too: hexadecimal, as mkdtemp's underscores are not allowed there everywhere.
    folder = Path(tempfile.gettempdir()) / f"ephemeral-engine-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o700)
    running = Engine(folder, runsc, flags)
    try:
        yield running
    finally:
        running.stop()


def guard(folder: Path) -> None:
    """Keep dockerd until SIGTERM, which also comes when our parent dies; then remove all that it made."""
    pr_set_pdeathsig, pr_set_child_subreaper = 1, 36
    libc = ctypes.CDLL(None)
    libc.prctl(pr_set_child_subreaper, 1, 0, 0, 0)
    libc.prctl(pr_set_pdeathsig, int(signal.SIGTERM), 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})
    # In memory: written at once, and thrown away at once.
    (folder / "data").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2g", "tmpfs", str(folder / "data")], check=True)
    with open(folder / "log", "wb") as log:
        dockerd = subprocess.Popen(
            ["dockerd", f"--config-file={folder}/daemon.json"], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}))
    while signal.sigwait({signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}) == signal.SIGCHLD:
        if dockerd.pid in _collect():
            break  # it ended by itself: the log says why
    with contextlib.suppress(ProcessLookupError):
        os.kill(dockerd.pid, signal.SIGTERM)
    # Engine, containerd and shims are children of ours now, or of those that are.
    deadline = time.monotonic() + STOP_SECONDS
    while (left := _children()) and time.monotonic() < deadline:
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
        place = line.split()[4]
        if place.startswith(f"{folder}/"):
            subprocess.run(["umount", "--lazy", place], check=False)
    shutil.rmtree(folder, ignore_errors=True)
    root = Path("/sys/fs/cgroup")
    for group in (root / folder.name, *root.glob(f"*/{folder.name}")):  # version 2, version 1
        for directory, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(directory)


if __name__ == "__main__":
    guard(Path(sys.argv[1]))
