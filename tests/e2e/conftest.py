"""The whole house, started as a user starts it: `ephemeral up`, with a provider that replays recorded answers."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ephemeral.client import Client

TASKS = Path(__file__).parents[2] / "sdk" / "ephemeral_cli" / "demo" / "tasks.jsonl"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Up:
    """A running `ephemeral up`. ``client`` speaks to its sandboxd over the Unix socket."""

    process: subprocess.Popen[str]
    state: Path
    openai: str
    mcp: str
    dashboard: str
    client: Client
    said: list[str] = field(default_factory=list)

    def pid(self, module: str) -> int:
        """The process that runs ``module`` for this house."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and (entry / "stat").exists():
                try:
                    command = (entry / "cmdline").read_text().split("\0")
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                except (OSError, ValueError):
                    continue
                if module in command and parent == self.process.pid:
                    return int(entry.name)
        raise LookupError(f"no {module} under {self.process.pid}")

    def until(self, true: Callable[[], object], what: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            if time.monotonic() > deadline:
                pytest.fail(f"waited {seconds:.0f} s in vain: {what}")
            time.sleep(0.05)

    def stop(self) -> int:
        """Ctrl-C; the exit status."""
        self.client.close()
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            pytest.fail("`ephemeral up` did not stop within 60 s of Ctrl-C")
        finally:
            assert self.process.stdout is not None
            self.process.stdout.close()


def start_up(state: Path, store: Path, **variables: str) -> Up:
    """Start `ephemeral up` on free ports and wait for its addresses."""
    ports = {f"EPHEMERAL_{name}_PORT": str(free_port()) for name in ("PROXY", "MCP", "SANDBOXD")}
    environment = {**os.environ, **ports, "EPHEMERAL_STATE": str(state), "EPHEMERAL_STORE": str(store), **variables}
    process = subprocess.Popen(
        [Path(sys.executable).with_name("ephemeral"), "up"], env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if "Ctrl-C" in line:
            break
    else:
        pytest.fail("`ephemeral up` ended: " + "".join(said))
    text = "".join(said)

    def address(pattern: str) -> str:
        found = re.search(pattern, text)
        assert found, text
        return found.group(1)

    return Up(process, state, address(r"OPENAI_BASE_URL=(\S+)"), address(r"MCP server\s+(\S+)"), address(r"dashboard\s+(\S+)"),
              Client(f"unix:{state / 'sandboxd.sock'}"), said)


@pytest.fixture(scope="session")
def provider() -> Iterator[str]:
    """A real HTTP server that streams the demo's recorded answers at a quick pace; its base URL without /v1."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "ephemeral_cli.replay.provider", str(TASKS), str(port), "1.0", "60"])
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            if time.monotonic() > deadline:
                process.kill()
                pytest.fail("the replaying provider did not start")
            time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(10)


@pytest.fixture(scope="session")
def houses(store: Path, short_directory: Path, provider: str) -> Callable[..., Up]:
    """Starts one more house on a state directory of its own; the test calls its ``stop()``."""

    def start(**variables: str) -> Up:
        return start_up(Path(tempfile.mkdtemp(dir=short_directory)), store, EPHEMERAL_UPSTREAM=provider, **variables)

    return start


@pytest.fixture(scope="module")
def up(houses: Callable[..., Up]) -> Iterator[Up]:
    running = houses(EPHEMERAL_CAPTURE="1")
    yield running
    running.stop()
