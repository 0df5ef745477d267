"""sandboxd's real API over a stand-in pool, as a process; and the real MCP server, as another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

STAND_IN = Path(__file__).parents[1] / "api" / "stand_in.py"


@dataclass
class Sandboxd:
    state: Path
    process: subprocess.Popen[str]

    @property
    def environment(self) -> dict[str, str]:
        """For a process of another room that is to find this sandboxd."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("EPHEMERAL_")}
        return clean | {"EPHEMERAL_STATE": str(self.state), "EPHEMERAL_MCP_PORT": "0"}

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.communicate("", timeout=60)


@pytest.fixture(scope="module")
def sandboxd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandboxd]:
    state = tmp_path_factory.mktemp("state")
    with subprocess.Popen(
        [sys.executable, str(STAND_IN), str(state), "secret"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        server = Sandboxd(state, process)
        yield server
        server.stop()


@dataclass
class McpServer:
    """The MCP server over HTTP, on a port of its own choice."""

    process: subprocess.Popen[str]
    url: str

    @classmethod
    def start(cls, environment: dict[str, str]) -> McpServer:
        process = subprocess.Popen([sys.executable, "-m", "ephemeral_mcp"], env=environment, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        for line in process.stderr:
            if "listening on " in line:
                return cls(process, line.split("listening on ")[1].strip().removesuffix("/mcp"))
        raise AssertionError(f"the MCP server ended at once with {process.wait()}")

    def stop(self) -> str:
        """Ends it as `ephemeral up` would. Returns what it still had to say."""
        self.process.terminate()
        _, rest = self.process.communicate(timeout=60)
        return rest


@pytest.fixture(scope="module")
def mcp_server(sandboxd: Sandboxd) -> Iterator[McpServer]:
    server = McpServer.start(sandboxd.environment)
    yield server
    if server.process.returncode is None:
        server.stop()


@pytest.fixture
def mcp_url(mcp_server: McpServer) -> str:
    return mcp_server.url
