"""A sandbox as the pool knows it: a box, its state, what is mounted and imported in it, and whose it is."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ephemeral import wire
from ephemeral_sandboxd.pool.lifecycle import move
from ephemeral_sandboxd.pool.network import Network
from ephemeral_sandboxd.pool.rehearsals import rehearsal
from ephemeral_sandboxd.pool.stock import Stock
from ephemeral_sandboxd.runtimes import Box
from ephemeral_sandboxd.runtimes.spec import SLOT_COUNT

log = logging.getLogger(__name__)

PRELOAD_TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True)
class Mounted:
    """An environment on a slot. ``first``: it holds other versions than the base environment and wins over it."""

    environment: str
    path: str
    first: bool


class PooledSandbox:
    """One box in the pool. Only the pool's other modules call it, on the event loop."""

    def __init__(self, box: Box, stock: Stock, runtime: Literal["gvisor", "docker"], isolation: str):
        self.box = box
        self.stock = stock
        self.id = box.name
        self.state: wire.SandboxState = "booting"
        self.session: str | None = None
        self.started_from = "boot"
        self.start_ms: float | None = None
        self.mounted: list[Mounted] = []
        self.modules: dict[str, float] = {}
        """Imported here -> how many milliseconds that took (0: it came with the snapshot)."""
        self.broken: dict[str, str] = {}
        """Modules whose import failed -> why; not tried again."""
        self.executions = 0
        self.holds_files = False
        """Files were put into it from outside."""
        self.network: Network | None = None
        self.memory_bytes = 0
        self.awake_until = 0.0
        """On the event loop's clock: code is on its way, and an earlier timer must not freeze it."""
        self.measured_frozen = False
        """``memory_bytes`` was read since it froze: it cannot have changed."""
        self._restored_ms = 0.0
        self.created_at = time.time()
        self._runtime = runtime
        self._isolation = isolation

    def become(self, state: wire.SandboxState) -> None:
        self.state = move(self.state, state)
        self.measured_frozen = False  # something was done in it, or will be: even when it is frozen again before the next look

    def lost(self) -> None:
        """It died. Does nothing where it was given back before that was noticed."""
        if self.state != "deleted":
            self.become("lost")

    @property
    def used(self) -> bool:
        """Whether it holds something of its session's, which no other sandbox would have."""
        return self.executions > 0 or self.holds_files

    @property
    def alive(self) -> bool:
        return self.box.alive and self.state not in ("lost", "deleted")

    @property
    def environments(self) -> list[str]:
        return [mounted.environment for mounted in self.mounted]

    def search_paths(self) -> tuple[list[str], list[str]]:
        """The slots as the guest sees them: (after the base environment, before it)."""
        return [m.path for m in self.mounted if not m.first], [m.path for m in self.mounted if m.first]

    def restored_from(self, snapshot: wire.Snapshot) -> None:
        self.started_from = snapshot.id
        self.modules = dict.fromkeys(snapshot.modules, 0.0)
        self._restored_ms = snapshot.import_ms

    @property
    def by_hand_ms(self) -> float:
        """What the imports took that were done in it."""
        return sum(self.modules.values())

    @property
    def imports_ms(self) -> float:
        """What the imports took that stand ready in it: here, or when its snapshot was made."""
        return self._restored_ms + self.by_hand_ms

    def replaces_base(self, environments: Collection[str]) -> bool:
        """Whether it has ``environments`` (none given: any at all) before its base environment."""
        first = {mounted.environment for mounted in self.mounted if mounted.first}
        return bool(first) and first.issuperset(environments)

    async def release(self) -> None:
        """Close what it has open and delete it. Never raises."""
        if self.network:
            await self.network.close()
        await self.box.delete()

    def mount(self, environment: str, *, first: bool = False) -> None:
        """Put an environment under this sandbox, running or not: one bind mount. Does nothing when it is there already.

        Raises IndexError when no slot is free, OSError when the kernel refuses.
        """
        if environment in self.environments:
            return
        if self.full:
            raise IndexError(f"all {SLOT_COUNT} slots of {self.id} are taken: end the session and start a new one")
        path = self.box.mount(len(self.mounted), self.stock.environments.mount(environment))
        self.mounted.append(Mounted(environment, path, first))

    def adopt_mounts(self, environments: list[str], firsts: list[bool]) -> None:
        """Note what start() mounted already: slot i holds environment i."""
        self.mounted = [Mounted(environment, f"/slots/{slot}", first)
                        for slot, (environment, first) in enumerate(zip(environments, firsts, strict=True))]

    @property
    def full(self) -> bool:
        """Whether no slot is free: nothing more need be fetched for it."""
        return len(self.mounted) >= SLOT_COUNT

    async def look(self) -> None:
        """Make the guest see what was mounted. Raises runtimes.Gone."""
        slots, first = self.search_paths()
        await self.box.request("mount", slots=slots, first=first)

    async def preload(self, module: str) -> float:
        """Import ``module``; milliseconds. A failing import is remembered in ``broken``. Raises runtimes.Gone."""
        if module in self.modules or module in self.broken:
            return 0.0
        answer = await self.box.request("preload", PRELOAD_TIMEOUT_SECONDS, module=module)
        if answer.get("error"):
            self.broken[module] = str(answer["error"])[:300]
        took = float(answer.get("ms") or 0.0)
        self.modules[module] = took
        return took

    async def rehearse(self, module: str) -> float:
        """Have an imported module do its usual first thing once; milliseconds. Raises runtimes.Gone."""
        program = rehearsal(module)
        if not program or module in self.broken:
            return 0.0
        answer = await self.box.request("rehearse", PRELOAD_TIMEOUT_SECONDS, program=program)
        if answer.get("error"):
            log.warning("rehearsal of %s: %s", module, str(answer["error"])[:300])
        took = float(answer.get("ms") or 0.0)
        self.modules[module] += took
        return took

    def held_bytes(self) -> int | None:
        """Memory that it holds at this moment; None where nobody can tell."""
        try:
            return self.box.usage().memory_bytes
        except OSError:
            return None

    async def settle(self) -> None:
        """Tidy the heap, after the last import. Raises runtimes.Gone."""
        await self.box.request("settle")

    def imported(self, module: str) -> bool:
        """Whether ``module`` or something below it was imported ahead."""
        return any(have == module or have.startswith(f"{module}.") for have in self.modules if have not in self.broken)

    def wire(self) -> wire.Sandbox:
        return wire.Sandbox(
            id=self.id, session=self.session, runtime=self._runtime, isolation=self._isolation, state=self.state,
            frozen=self.box.frozen, root=self.stock.name, started_from=self.started_from, start_ms=self.start_ms, environments=self.environments,
            modules=sorted(self.modules), memory_bytes=self.memory_bytes, memory_limit_bytes=self.box.size.memory_bytes,
            cpus=self.box.size.cpus, disk_bytes=self.box.size.disk_bytes, executions=self.executions, created_at=self.created_at)


def image_of(directory: Path) -> Path:
    """Where a snapshot's checkpoint lies inside its directory."""
    return directory / "image"
