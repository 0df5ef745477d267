"""Where the bench works: the real parts on the machine's store, with a state directory of their own that is gone afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ephemeral import names, settings
from ephemeral_sandboxd import host, mounts
from ephemeral_sandboxd.bench.figures import Figures
from ephemeral_sandboxd.errors import SandboxdError, Unavailable
from ephemeral_sandboxd.pool import needs
from ephemeral_sandboxd.pool.fleet import Fleet
from ephemeral_sandboxd.pool.photographer import Photographer, fingerprint
from ephemeral_sandboxd.pool.sandbox import image_of
from ephemeral_sandboxd.pool.snapshots import Snapshots
from ephemeral_sandboxd.pool.stock import Stock, Stocks
from ephemeral_sandboxd.runtimes import Box, Gone, Size
from ephemeral_sandboxd.runtimes.gvisor import GVisor

log = logging.getLogger(__name__)

PREFIX = "ephemeral-bench-"
DAEMON = "daemon"
"""State directory, below the bench's own, of the daemon that it starts."""
TIMEOUT_SECONDS = 180.0
OUTPUT_BYTES = 1 << 16
SIZE = Size(memory_bytes=2 << 30, cpus=1.0, pids=256, disk_bytes=512 << 20)

KINDS = {
    "bare": [],
    "numpy": needs.canonical(["numpy"]),
    "pandas": needs.canonical(["pandas"]),
    "science": needs.canonical(["numpy", "pandas", "matplotlib", "sklearn", "scipy"]),
    "torch": needs.canonical(["torch"]),
}
"""Modules that the snapshot of each kind holds."""

Progress = Callable[[str, int, int], None]


class NotHere(Exception):
    """The store lacks what a measure needs. The message is one sentence."""


@dataclass
class Place:
    """``find`` and the rest are what a daemon would be built from. One user at a time."""

    state: Path
    store: Path
    parts: host.Parts
    runtime: GVisor
    stock: Stock
    fleet: Fleet
    photographer: Photographer
    quick: bool
    progress: Progress
    engine: str | None = None
    """Version of the Docker engine, once one was asked."""
    _started: int = field(default=0)

    def times(self, usual: int, quick: int) -> int:
        """How often to measure."""
        return quick if self.quick else usual

    def check(self, kind: str) -> None:
        """Raises NotHere when the base environment lacks something of ``kind``."""
        base = self.stock.environments.base
        lacking = [package for module in KINDS[kind] if (package := _package(module)) not in (base.packages if base else {})]
        if lacking:
            raise NotHere(f"the store's base environment has no {', '.join(lacking)}")

    async def image(self, kind: str) -> Path:
        """The snapshot of ``kind``: the store's own, else made now. Raises NotHere, SandboxdError."""
        self.check(kind)
        modules, base = KINDS[kind], self.stock.base
        snapshot = self.stock.snapshots.exact(modules, base)
        if snapshot is None:
            self.progress(f"making the snapshot: {kind}", 0, 1)
            snapshot = await self.photographer.take(self.stock, modules, base, [False] * len(base))
        return image_of(self.stock.snapshots.directory(snapshot.id))

    async def start(self, image: Path | None) -> Box:
        """A sandbox on the base environment, restored or booted."""
        self._started += 1
        environments = self.stock.environments
        slots = {slot: environments.mount(environment) for slot, environment in enumerate(self.stock.base)}
        box = await self.runtime.start(f"b{self._started}", SIZE, image, slots)
        if image is None and slots:
            await box.request("mount", slots=self.slots, first=[])
        return box

    async def restored(self, kind: str) -> Box:
        """One that has answered. Raises NotHere, SandboxdError."""
        box = await self.start(await self.image(kind))
        await self.answer(box)
        return box

    @property
    def slots(self) -> list[str]:
        """The base environment's, as the guest sees it."""
        return [f"/slots/{slot}" for slot in range(len(self.stock.base))]

    async def answer(self, box: Box, code: str = "1+1", expected: str = "2") -> None:
        """Run ``code``, whose output or last expression must be ``expected``. Raises errors.Unavailable."""
        answer = await box.execute(code, language="python", timeout=TIMEOUT_SECONDS, output_bytes=OUTPUT_BYTES, slots=self.slots, first=[])
        said = str(answer.fields.get("result") or "".join(answer.stdout)).strip()
        if said != expected:
            why = answer.gone.reason if answer.gone else answer.fields.get("traceback") or said
            raise Unavailable("wrong answer", f"{box.name}: {str(why)[-300:]}", "ephemeral doctor")

    async def settled(self) -> None:
        """Wait until what starts left to do behind it is done, as after any quiet moment."""
        await self.runtime.fill_blanks(SIZE)


@contextlib.asynccontextmanager
async def open_place(store: Path, *, quick: bool, progress: Progress) -> AsyncIterator[Place]:
    """Raises errors.Unavailable where no sandbox can start."""
    if os.geteuid() != 0:
        raise Unavailable("no bench without root", "it works in a state directory of its own, whose control group nobody has handed over",
                          "sudo -E ephemeral bench sandbox")
    if settings.get("runtime") == "docker":
        raise Unavailable("no bench of this runtime", "EPHEMERAL_RUNTIME is docker, and the bench drives runsc itself",
                          "EPHEMERAL_RUNTIME=gvisor ephemeral bench sandbox")
    parts = host.parts(store)
    await _clear_leftovers(store)
    state = Path(tempfile.mkdtemp(prefix=PREFIX))
    lock = host.take(state)
    try:
        async with _parts(state, store, parts, quick, progress) as place:
            yield place
    finally:
        host.release(lock)
        _remove(state)


@contextlib.asynccontextmanager
async def _parts(state: Path, store: Path, parts: host.Parts, quick: bool, progress: Progress) -> AsyncIterator[Place]:
    runtime = host.runtime("gvisor", store, state)
    assert isinstance(runtime, GVisor)
    await runtime.check()
    root, environments = host.finder(store, state, runtime)("default")
    snapshots = Snapshots(fingerprint(runtime, root.path), store / "snapshots", state / "snapshots", lambda _: None)
    stock = Stock(root, environments, snapshots)
    budget = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    fleet = Fleet(runtime, Stocks(lambda _: stock), size=SIZE, spares=0, budget_bytes=budget, changed=lambda _: None)
    try:
        yield Place(state, store, parts, runtime, stock, fleet, Photographer(fleet), quick, progress)
    finally:
        await fleet.close()
        await environments.close()
        await runtime.close()


async def _clear_leftovers(store: Path) -> None:
    """Reap what benches left that were killed; one that runs holds its lock."""
    for state in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        facts = state.lstat()
        if not state.is_dir() or state.is_symlink() or facts.st_uid != os.geteuid():
            continue
        try:
            lock = host.take(state)
        except SandboxdError:
            continue
        try:
            for folder in (state, state / DAEMON):
                runtime = host.runtime("gvisor", store, folder)
                await runtime.check()
                await runtime.reap()
                await runtime.close()
        except (SandboxdError, OSError) as problem:
            log.warning("what a killed bench left in %s is still there: %s", state, problem)
        else:
            _remove(state)
        finally:
            host.release(lock)


def _remove(state: Path) -> None:
    """Never descends into what is still mounted."""
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        place = Path(line.split()[4])
        if state in place.parents:
            mounts.unmount(place)
    shutil.rmtree(state, ignore_errors=True)


def _package(module: str) -> str:
    return names.normalize(names.package_for(module.partition(".")[0]) or module)


async def timed(work: Callable[[], object]) -> float:
    """Milliseconds that ``work`` takes; awaited when it can be."""
    began = time.perf_counter()
    result = work()
    if asyncio.iscoroutine(result):
        await result
    return (time.perf_counter() - began) * 1000


@contextlib.contextmanager
def reasons(figures: Figures, *measures: str) -> Iterator[None]:
    """What is raised while ``measures`` are taken becomes the reason why they, or what is below them, are missing; others go on."""
    try:
        yield
    except (NotHere, SandboxdError, Gone, OSError) as problem:
        reason = str(problem) if isinstance(problem, NotHere) else f"failed: {problem}"
    except ExceptionGroup as problems:
        reason = f"failed: {problems.exceptions[0]}"
    else:
        return
    for measure in measures:
        figures.missing(measure, reason)
