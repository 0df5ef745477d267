"""kill -9 of a real sandboxd, and the next one on the same state directory: nothing recorded is lost, nothing is left running."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ephemeral import wire
from ephemeral.client import Client
from ephemeral.errors import EphemeralError
from ephemeral_sandboxd.runtimes import cgroups

READY_SECONDS = 60


class Sandboxd:
    """One process after the other on one state directory."""

    def __init__(self, state: Path, store: Path):
        self.state = state
        self.group = f"/ephemeral-{hashlib.sha256(str(state.resolve()).encode()).hexdigest()[:8]}"
        self._environ = {**os.environ, "EPHEMERAL_STATE": str(state), "EPHEMERAL_STORE": str(store), "EPHEMERAL_SANDBOXD_PORT": "0",
                         "EPHEMERAL_TOKEN": "x" * 32, "EPHEMERAL_LOG": "WARNING"}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Client:
        self.process = subprocess.Popen([sys.executable, "-m", "ephemeral_sandboxd"], env=self._environ)
        client = Client(f"unix:{self.state}/sandboxd.sock")
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                client.host()
                return client
            except EphemeralError:
                assert self.process.poll() is None, "sandboxd ended"
                assert time.monotonic() < deadline, "sandboxd did not answer"
                time.sleep(0.05)

    def end(self, number: int) -> None:
        assert self.process
        self.process.send_signal(number)
        self.process.wait(60)
        _collect()

    def left(self) -> list[str]:
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.state) in line]
        directories = [entry.name for entry in (self.state / "run" / "sandboxes").iterdir()]
        return [*cgroups.children(self.group), *mounts, *directories]


@pytest.fixture
def sandboxd(state: Path, store: Path) -> Iterator[Sandboxd]:
    running = Sandboxd(state, store)
    yield running
    if running.process and running.process.poll() is None:
        running.end(signal.SIGTERM)
    assert running.left() == []


def _collect() -> None:
    """Whoever kills sandboxd inherits the commands of runsc that it was waiting for: here that is this very process, a subreaper."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        orphans = [int(pid) for thread in os.listdir("/proc/self/task") for pid in Path(f"/proc/self/task/{thread}/children").read_text().split()
                   if Path(f"/proc/{pid}/comm").read_text().strip() == "runsc"]
        if not orphans:
            return
        for pid in orphans:
            os.waitpid(pid, os.WNOHANG)
        time.sleep(0.05)


def until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_after_a_kill_what_was_answered_is_recorded_and_what_ran_is_reaped(sandboxd: Sandboxd):
    with sandboxd.start() as client:
        answered = [client.execute(wire.ExecutionRequest(code=f"x = {number}\nx", session="before")).id for number in range(5)]
        client.open_session("empty")
        sandboxes = {sandbox.id for sandbox in client.sandboxes().items}
        assert sandboxes
        sandboxd.end(signal.SIGKILL)
    with sandboxd.start() as client:
        assert {execution.id for execution in client.executions("before").items} >= set(answered)
        assert not sandboxes & {sandbox.id for sandbox in client.sandboxes().items}
        after = client.execute(wire.ExecutionRequest(code="'x' in globals()", session="before"))
        assert (after.verdict, after.result) == ("ok", "False")
        assert after.notice
        assert "restarted" in after.notice
        assert client.execute(wire.ExecutionRequest(code="1", session="before")).notice is None
        assert client.execute(wire.ExecutionRequest(code="1", session="empty")).notice is None
        assert client.session("before").state == "active"


def test_an_execution_that_was_running_at_the_kill_is_told_as_crashed(sandboxd: Sandboxd):
    with sandboxd.start() as client:
        pieces = client.execute_streamed(wire.ExecutionRequest(code="import time; time.sleep(60)", session="cut"))
        identity = next(piece.execution.id for piece in pieces if piece.kind == "accepted" and piece.execution)
        assert next(piece.kind for piece in pieces) == "started"
        until(lambda: client.execution(identity).state == "running", "the running execution is recorded")
        sandboxd.end(signal.SIGKILL)
        pieces.close()  # type: ignore[attr-defined]
    with sandboxd.start() as client:
        execution = client.execution(identity)
        assert (execution.state, execution.verdict) == ("done", "crashed")
        assert execution.error


def test_a_second_sandboxd_on_the_same_state_is_refused(sandboxd: Sandboxd):
    with sandboxd.start():
        second = subprocess.run([sys.executable, "-m", "ephemeral_sandboxd"], env=sandboxd._environ, capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode == 2
        assert "another sandboxd" in second.stderr
