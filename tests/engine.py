"""A private Docker engine for tests: its own socket, data, containerd namespace and control group, gone without trace afterwards.

Its guardian is the bench's: a subreaper that takes everything down when the tests end, also by SIGKILL.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import docker

from ephemeral_sandboxd.bench import engine as bench_engine
from ephemeral_sandboxd.bench.engine import START_SECONDS, STOP_SECONDS


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
        # In memory: written at once, and thrown away at once.
        (folder / "data").mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2g", "tmpfs", str(folder / "data")], check=True)
        self._guardian = subprocess.Popen([sys.executable, "-P", bench_engine.__file__, str(folder)], stdin=subprocess.DEVNULL)
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
