"""The processes of a run: on which cores, how they start, what they hold in memory, and that none is left."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STOP_SECONDS = 5.0
START_SECONDS = 120.0
"""LiteLLM imports for ten seconds on a fast machine."""
SETTLE_SECONDS = 15.0
PROC = Path("/proc")
HELPERS = "ephemeral_proxy.bench"

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class NotMeasured(Exception):
    """Why something cannot be measured, in one sentence."""


@dataclass(frozen=True)
class Cores:
    """``target`` is the core of what is measured, ``others`` those of provider, load and predictor; on a machine with one core they share it."""

    target: frozenset[int]
    others: frozenset[int]

    @classmethod
    def of_this_machine(cls) -> Cores:
        """Of those that this process may use."""
        first, *rest = sorted(os.sched_getaffinity(0))
        return cls(frozenset((first,)), frozenset(rest or (first,)))

    @property
    def all(self) -> frozenset[int]:
        return self.target | self.others


@contextlib.asynccontextmanager
async def running(command: Sequence[str], *, environment: Mapping[str, str], cores: frozenset[int], log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process group on ``cores``, whose words go to ``log``. It is gone afterwards, and it is told to stop when this process dies."""

    def prepare() -> None:
        os.sched_setaffinity(0, cores)
        _end_with_parent()

    words = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = await asyncio.create_subprocess_exec(
            *command, env=dict(environment), stdin=asyncio.subprocess.DEVNULL, stdout=words, stderr=words, start_new_session=True, preexec_fn=prepare,
            cwd=log.parent)
    finally:
        os.close(words)
    try:
        yield process
    finally:
        await _stop(process)


@contextlib.asynccontextmanager
async def helper(name: str, *arguments: str) -> AsyncIterator[Helper]:
    """One of the bench's own servers, ready."""
    process = await _helper(name, *arguments)
    try:
        assert process.stdout
        line = await asyncio.wait_for(process.stdout.readline(), START_SECONDS)
        if not line:
            assert process.stderr
            raise NotMeasured(f"the bench's {name} did not start: {_last_words((await process.stderr.read()).decode(errors='replace'))}")
        yield Helper(process, json.loads(line))
    finally:
        await _stop(process)


@dataclass
class Helper:
    process: asyncio.subprocess.Process
    ready: dict[str, Any]

    async def finish(self) -> dict[str, Any]:
        """Let it end, and its last words."""
        said, _ = await asyncio.wait_for(self.process.communicate(), STOP_SECONDS)
        last: dict[str, Any] = json.loads(said)
        return last


async def load(within: float, /, **wanted: Any) -> dict[str, Any]:
    """What ``ephemeral_proxy.bench.load`` found, ``within`` seconds."""
    process = await _helper("load", json.dumps(wanted))
    try:
        said, complaints = await asyncio.wait_for(process.communicate(), within)
    except TimeoutError:
        raise NotMeasured(f"the load did not end within {within:g} s") from None
    finally:
        await _stop(process)
    if process.returncode:
        raise NotMeasured(f"the load ended with status {process.returncode}: {_last_words(complaints.decode(errors='replace'))}")
    found: dict[str, Any] = json.loads(said)
    return found


async def _helper(name: str, *arguments: str) -> asyncio.subprocess.Process:
    # A session of its own: Ctrl-C is for the bench alone, which stops what it started.
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"{HELPERS}.{name}", *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, start_new_session=True, preexec_fn=_end_with_parent)


def _end_with_parent() -> None:
    """In a new process: the kernel tells it to stop when the bench dies, however it dies."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


async def until(there: Callable[[], bool], process: asyncio.subprocess.Process, log: Path, what: str) -> None:
    """Wait until ``there``. Raises NotMeasured with the last words of ``log`` when the process ends first or takes too long."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + START_SECONDS
    while not there():
        if process.returncode is not None or loop.time() > deadline:
            ended = f"ended with status {process.returncode}" if process.returncode is not None else f"was not there within {START_SECONDS:g} s"
            raise NotMeasured(f"{what} {ended}: {_last_words(log.read_text(errors='replace'))}")
        await asyncio.sleep(0.02)


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            pass
        finally:  # also when we are told to hurry
            _kill_group(process.pid)
        await process.wait()
    else:
        _kill_group(process.pid)


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _last_words(said: str) -> str:
    return " / ".join(stripped for line in said.splitlines() if (stripped := line.strip()))[-300:] or "it said nothing"


def free_port() -> int:
    """For programs that do not say which port they were given."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


# --------------------------------------------------------------------------------------------------------- memory


def pss_mb(root: int) -> float:
    """Memory of a process and all that descends from it, by proportional set size: what they share counts once."""
    total_kb = 0
    for pid in _tree(root):
        with contextlib.suppress(OSError):  # it has just ended
            lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
            total_kb += next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return total_kb / 1024


async def settled(root: int) -> None:
    """Wait until a process and its descendants have done what is left to do: half a second with hardly any processor time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SETTLE_SECONDS
    before = _ticks(root)
    while loop.time() < deadline:
        await asyncio.sleep(0.5)
        now = _ticks(root)
        if now - before <= 2:
            return
        before = now


def _ticks(root: int) -> int:
    total = 0
    for pid in _tree(root):
        with contextlib.suppress(OSError):
            fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total


def _tree(root: int) -> list[int]:
    found, todo = [], [root]
    while todo:
        found.append(todo.pop())
        for file in PROC.glob(f"{found[-1]}/task/*/children"):
            with contextlib.suppress(OSError):
                todo += [int(child) for child in file.read_text().split()]
    return found
