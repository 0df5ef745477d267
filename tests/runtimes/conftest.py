"""Both runtimes, really running: gvisor through runsc, docker through an engine of the tests' own."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from ephemeral_sandboxd import host, process
from ephemeral_sandboxd.errors import Unavailable
from ephemeral_sandboxd.runtimes import Answer, Box, Size, cgroups
from ephemeral_sandboxd.runtimes.docker import GROUP_LABEL, DockerRuntime
from ephemeral_sandboxd.runtimes.gvisor import FLAGS, GVisor, sweep

SMALL = Size(memory_bytes=512 << 20, cpus=1.0, pids=256, disk_bytes=128 << 20)
Boot = Callable[..., Awaitable[Box]]


def _helper(name: str):
    """A module of tests/ that is no test: importlib import mode has no sys.path for it."""
    import importlib.util

    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent.parent / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Place:
    """A runtime, the directory it works in, and what can be asked about what it left on the host."""

    kind: str
    runtime: GVisor | DockerRuntime
    run: Path
    group: str
    engine: SimpleNamespace | None

    def left(self, name: str = "") -> list[str]:
        """All that the host still has of sandbox ``name``, or of any."""
        found = [f"group {path}" for path in cgroups.children(self.group) if name in path]
        found += [f"mount {line.split()[4]}" for line in Path("/proc/self/mountinfo").read_text().splitlines()
                  if f"{self.run}/sandboxes/{name}" in line]
        found += [f"directory {entry}" for entry in (self.run / "sandboxes").iterdir() if name in entry.name]
        found += [f"process {line}" for line in _command_lines() if str(self.run) in line and name in line]
        if self.engine:
            containers = self.engine.client.api.containers(all=True, filters={"label": f"{GROUP_LABEL}={self.group}"})
            found += [f"container {container['Names']}" for container in containers if name in container["Names"][0]]
        return found


def _command_lines() -> Iterator[str]:
    """Of every process but ours."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(os.getpid()):
            try:
                yield (entry / "cmdline").read_text().replace("\0", " ")
            except (OSError, UnicodeDecodeError):
                continue


@pytest.fixture(scope="session")
def parts(store: Path) -> host.Parts:
    process.quiet()
    if os.geteuid():
        pytest.fail("sandboxes need root (mounts, control groups): run as root or with sudo")
    try:
        return host.parts(store)
    except Unavailable as problem:
        pytest.fail(f"run `make test-store`: {problem}")


@pytest.fixture(scope="session")
def engine(parts: host.Parts) -> Iterator[SimpleNamespace]:
    """A Docker engine that knows runsc; DOCKER_HOST names it."""
    with pytest.MonkeyPatch.context() as patch, _helper("engine").engine(parts.runsc, FLAGS) as running:
        patch.setenv("DOCKER_HOST", running.host)
        yield running


def make(kind: str, parts: host.Parts, run: Path, group: str) -> GVisor | DockerRuntime:
    return GVisor(parts.runsc, parts.rootfs, run, group) if kind == "gvisor" else DockerRuntime(parts.rootfs, run, group)


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=["gvisor", "docker"])
async def place(request: pytest.FixtureRequest, parts: host.Parts, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """One runtime after the other, ready to start sandboxes; at the end nothing of it may be left."""
    kind = request.param
    running = request.getfixturevalue("engine") if kind == "docker" else None
    run = tmp_path_factory.mktemp(kind)
    group = f"/ephemeral-test-{os.getpid()}-{kind}"
    runtime = make(kind, parts, run, group)
    await runtime.check()
    assert await runtime.reap() == 0
    found = Place(kind, runtime, run, group, running)
    yield found
    reaped = await runtime.reap()
    left = found.left()
    cgroups.Cgroup(group).remove()
    shutil.rmtree(run, ignore_errors=True)
    deadline = time.monotonic() + 5
    while (zombies := _zombies()) and time.monotonic() < deadline:
        sweep()
        time.sleep(0.02)
    assert (reaped, left, zombies) == (0, [], [])


def _zombies() -> list[str]:
    """Dead sandbox processes that nobody collected."""
    found = []
    for thread in os.listdir("/proc/self/task"):
        for pid in Path(f"/proc/self/task/{thread}/children").read_text().split():
            state = Path(f"/proc/{pid}/stat").read_text()
            if "(exe) Z" in state or "(runsc" in state:
                found.append(state)
    return found


_numbers = itertools.count()


@pytest_asyncio.fixture(loop_scope="session")
async def boot(place: Place) -> AsyncIterator[Boot]:
    """Start sandboxes of one's own; they are deleted after the test."""
    boxes: list[Box] = []

    async def start(size: Size = SMALL, image: Path | None = None, slots: dict[int, Path] | None = None) -> Box:
        box = await place.runtime.start(f"own{next(_numbers)}", size, image, slots)
        boxes.append(box)
        return box

    yield start
    await asyncio.gather(*(box.delete() for box in boxes))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def lasting(place: Place) -> AsyncIterator[dict[str, Box]]:
    boxes: dict[str, Box] = {}
    yield boxes
    for box in boxes.values():
        await box.delete()


@pytest_asyncio.fixture(loop_scope="session")
async def box(place: Place, lasting: dict[str, Box]) -> Box:
    """A sandbox for tests that leave it in order; they share one as long as it lives."""
    known = lasting.get("box")
    if known is None or not known.alive:
        if known:
            await known.delete()
        lasting["box"] = known = await place.runtime.start(f"shared{next(_numbers)}", SMALL)
    return known


@pytest.fixture(scope="session")
def wheel(store: Path) -> Callable[[str], Path]:
    """The directory that a package of the small base environment is imported from."""
    wheels = json.loads((store / "base.json").read_text())["lock"]["wheels"]
    return lambda name: store / "wheels" / next(wheel["sha256"] for wheel in wheels if wheel["name"] == name) / "site"


async def execute(box: Box, code: str, *, language: str = "python", timeout: float = 60.0, output_bytes: int = 1 << 20,
                  slots: list[str] | None = None, first: list[str] | None = None, **more: Any) -> Answer:
    return await box.execute(code, language=language, timeout=timeout, output_bytes=output_bytes, slots=slots or [], first=first or [], **more)


@pytest.fixture
def run() -> Callable[..., Awaitable[Answer]]:
    """Execute code in a sandbox: ``await run(box, code, timeout=…, output_bytes=…)``."""
    return execute


async def value_of(box: Box, code: str) -> str | None:
    answer = await execute(box, code)
    assert answer.gone is None, answer.gone
    assert answer.fields["traceback"] is None, answer.fields["traceback"]
    return answer.fields["result"]


@pytest.fixture
def value() -> Callable[[Box, str], Awaitable[str | None]]:
    """The repr of what code ends in; it must not fail."""
    return value_of
