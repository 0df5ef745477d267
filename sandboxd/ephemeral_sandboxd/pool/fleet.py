"""All sandboxes of this host: started, kept spare, handed out, measured, deleted, within the memory budget."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable

from ephemeral import wire
from ephemeral.tasks import Tasks
from ephemeral_sandboxd.environments import Environments
from ephemeral_sandboxd.errors import Busy, SandboxdError, Unavailable
from ephemeral_sandboxd.pool.sandbox import PooledSandbox, image_of
from ephemeral_sandboxd.pool.snapshots import Snapshots
from ephemeral_sandboxd.runtimes import Gone, Runtime, Size

log = logging.getLogger(__name__)

TYPICAL_SANDBOX_BYTES = 150 << 20
"""What a sandbox with a science stack imported holds (measured 125-150 MB): the reservation for one that is starting."""


class Fleet:
    """Owns every sandbox. ``changed`` is called with a sandbox whenever something that is shown of it changed."""

    def __init__(self, runtime: Runtime, environments: Environments, snapshots: Snapshots, *, size: Size, spares: int,
                 budget_bytes: int, changed: Callable[[wire.Sandbox], None]):
        self.runtime = runtime
        self.default_size = size
        self.budget_bytes = budget_bytes
        self._environments = environments
        self._snapshots = snapshots
        self._spares_wanted = spares
        self._changed = changed
        self._all: dict[str, PooledSandbox] = {}
        self._starting = 0
        self._tasks = Tasks()
        self._filling = asyncio.Lock()
        self._closing = False
        self.evict: Callable[[], bool] = lambda: False
        """Set by the owner of the sessions: give one idle sandbox back; whether there was one."""

    # --------------------------------------------------------------------------------------------- asking

    def all(self) -> list[PooledSandbox]:
        return list(self._all.values())

    def get(self, sandbox_id: str) -> PooledSandbox | None:
        return self._all.get(sandbox_id)

    def spares(self) -> list[PooledSandbox]:
        return [sandbox for sandbox in self._all.values() if sandbox.state == "spare" and sandbox.alive]

    @property
    def memory_used_bytes(self) -> int:
        return sum(sandbox.memory_bytes for sandbox in self._all.values()) + self._starting * TYPICAL_SANDBOX_BYTES

    # --------------------------------------------------------------------------------------------- starting

    async def boot(self, *, size: Size | None = None, base: bool = True) -> PooledSandbox:
        """A fresh sandbox with the base environment mounted (or nothing at all), its guest answering. State: booting."""
        environments = [self._environments.base.id] if base and self._environments.base else []
        return await self._start(environments, [False] * len(environments), size or self.default_size, None)

    async def restore(self, snapshot: wire.Snapshot, *, size: Size | None = None) -> PooledSandbox:
        """A sandbox from a snapshot. A failed restore is counted and raised as errors.Unavailable: boot instead."""
        try:
            sandbox = await self._start(snapshot.environments, self._snapshots.firsts(snapshot.id), size or self.default_size, snapshot)
        except SandboxdError:
            self._snapshots.failed(snapshot.id)
            raise
        self._snapshots.restored(snapshot.id)
        sandbox.started_from = snapshot.id
        sandbox.modules = dict.fromkeys(snapshot.modules, 0.0)
        return sandbox

    async def take(self, modules: list[str], environments: list[str], *, size: Size | None = None) -> tuple[PooledSandbox, str]:
        """The sandbox closest to having ``modules`` imported, and how it came: ``restore``, ``spare`` or ``boot``."""
        snapshot = self._snapshots.nearest(modules, environments)
        if snapshot and snapshot.modules:
            try:
                return await self.restore(snapshot, size=size), "restore"
            except SandboxdError as problem:
                log.warning("falling back to a boot: %s", problem)
        for spare in self.spares():
            if size and size != spare.box.size:
                try:
                    spare.box.resize(size)
                except OSError:
                    continue
            spare.become("preparing")
            self.fill_soon()
            return spare, "spare"
        return await self._bare(size), "boot"

    async def _bare(self, size: Size | None = None) -> PooledSandbox:
        """The base environment and nothing imported: restored where a bare snapshot exists, else booted."""
        bare = self._snapshots.exact([], [self._environments.base.id] if self._environments.base else [])
        if bare:
            try:
                return await self.restore(bare, size=size)
            except SandboxdError as problem:
                log.warning("falling back to a boot: %s", problem)
        return await self.boot(size=size)

    async def _start(self, environments: list[str], firsts: list[bool], size: Size, snapshot: wire.Snapshot | None) -> PooledSandbox:
        self._admit()
        self._starting += 1
        try:
            name = f"s{secrets.token_hex(5)}"
            slots = {slot: self._environments.mount(environment) for slot, environment in enumerate(environments)}
            image = image_of(self._snapshots.directory(snapshot.id)) if snapshot else None
            try:
                box = await self.runtime.start(name, size, image, slots)
            except Unavailable as problem:
                if snapshot:
                    raise  # the caller boots instead
                # Seen once in some hundred starts on a busy machine: the sentry ends before it answers.
                log.warning("starting once more: %s", problem)
                box = await self.runtime.start(f"{name}b", size, None, slots)
        finally:
            self._starting -= 1
        sandbox = PooledSandbox(box, self.runtime.name, self.runtime.isolation)
        sandbox.adopt_mounts(environments, firsts)
        if not snapshot and environments:
            await sandbox.look()
        self._all[sandbox.id] = sandbox
        self._measure(sandbox)
        self._changed(sandbox.wire())
        return sandbox

    def _admit(self) -> None:
        """Make room for one more, or raise errors.Busy."""
        if self._closing:
            raise Busy("shutting down", "sandboxd is stopping", "try again when it runs")
        while self.memory_used_bytes + TYPICAL_SANDBOX_BYTES > self.budget_bytes:
            spare = next(iter(self.spares()), None)
            if spare:
                self.give_back(spare)
            elif not self.evict():
                raise Busy("no memory left", f"sandboxes hold {self.memory_used_bytes >> 20} MiB of {self.budget_bytes >> 20} MiB",
                           "end a session, or raise EPHEMERAL_MEMORY_BUDGET_BYTES")

    # --------------------------------------------------------------------------------------------- spares

    def fill_soon(self) -> None:
        """Start replacing spares that were taken, in the background."""
        if not self._filling.locked() and not self._closing:
            self._tasks.start(self.fill(), "fill spares")

    async def fill(self) -> None:
        """Boot spares until there are as many as wanted."""
        async with self._filling:
            while len(self.spares()) < self._spares_wanted and not self._closing:
                if self.memory_used_bytes + 2 * TYPICAL_SANDBOX_BYTES > self.budget_bytes:
                    return
                try:
                    sandbox = await self._bare()
                except SandboxdError as problem:
                    log.warning("no spare sandbox: %s", problem)
                    return
                sandbox.become("spare")
                sandbox.box.freeze()
                self._changed(sandbox.wire())

    # --------------------------------------------------------------------------------------------- keeping

    def show(self, sandbox: PooledSandbox) -> None:
        self._changed(sandbox.wire())

    def measure(self) -> None:
        """Read every sandbox's memory. Lost ones are noticed here: health is an answer, not a state."""
        for sandbox in list(self._all.values()):
            self._measure(sandbox)

    def _measure(self, sandbox: PooledSandbox) -> None:
        with contextlib.suppress(OSError):
            sandbox.memory_bytes = sandbox.box.usage().memory_bytes

    def give_back(self, sandbox: PooledSandbox) -> asyncio.Task[None] | None:
        """Delete a sandbox in the background, off anybody's path. None when it is gone already."""
        if self._all.pop(sandbox.id, None) is None:
            return None
        sandbox.become("deleted")
        sandbox.memory_bytes = 0
        self._changed(sandbox.wire())
        return self._tasks.start(sandbox.box.delete(), f"delete {sandbox.id}")

    async def close(self) -> None:
        """Delete every sandbox and wait until nothing of them is left."""
        self._closing = True
        while True:
            for sandbox in self.all():
                self.give_back(sandbox)
            await self._tasks.settle()
            if not self._all:  # a spare that was starting meanwhile is here only now
                return


async def bring_to_rest(sandbox: PooledSandbox) -> None:
    """Settle its heap and freeze it. A sandbox that dies here is noticed by its next user."""
    with contextlib.suppress(Gone):
        await sandbox.settle()
    sandbox.box.freeze()
