"""All sandboxes of this host: started, kept spare, handed out, measured, deleted, within the memory budget."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from ephemeral import wire
from ephemeral.tasks import Tasks
from ephemeral_sandboxd.errors import Busy, SandboxdError, Unavailable
from ephemeral_sandboxd.pool.admission import Admission, Declined
from ephemeral_sandboxd.pool.choosing import TYPICAL_SANDBOX_BYTES, expected_bytes
from ephemeral_sandboxd.pool.sandbox import PooledSandbox, image_of
from ephemeral_sandboxd.pool.stock import Stock, Stocks
from ephemeral_sandboxd.pool.worth import CERTAIN
from ephemeral_sandboxd.runtimes import Gone, Runtime, Size

log = logging.getLogger(__name__)

SPARE = 0.0
"""Worth of a sandbox that nobody has asked for: it takes nothing from anybody."""


class Fleet:
    """Owns every sandbox. ``changed`` is called with a sandbox whenever something that is shown of it changed."""

    def __init__(self, runtime: Runtime, stocks: Stocks, *, size: Size, spares: int, budget_bytes: int, changed: Callable[[wire.Sandbox], None]):
        self.runtime = runtime
        self.default_size = size
        self._stocks = stocks
        self._spares_wanted = spares
        self._changed = changed
        self._all: dict[str, PooledSandbox] = {}
        self._tasks = Tasks()
        self._filling = asyncio.Lock()
        # A hundred commands of runsc's at once take longer than one after the other, and longer than each may.
        self._deleting = asyncio.Semaphore(2 * (os.cpu_count() or 1))
        self._closing = False
        self.admission = Admission(budget_bytes, os.cpu_count() or 1, lambda: self.memory_used_bytes, self._yield_one)
        self.evict: Callable[[float], bool] = lambda worth: False
        """Set by the owner of the sessions: give one idle sandbox back that is worth less than this; whether there was one."""

    # --------------------------------------------------------------------------------------------- asking

    def all(self) -> list[PooledSandbox]:
        return list(self._all.values())

    def get(self, sandbox_id: str) -> PooledSandbox | None:
        return self._all.get(sandbox_id)

    def spares(self) -> list[PooledSandbox]:
        return [sandbox for sandbox in self._all.values() if sandbox.state == "spare" and sandbox.alive]

    @property
    def memory_used_bytes(self) -> int:
        """What all sandboxes hold, measured a second ago at most."""
        return sum(sandbox.memory_bytes for sandbox in self._all.values())

    # --------------------------------------------------------------------------------------------- starting

    async def boot(self, stock: Stock, *, size: Size | None = None, base: bool = True, worth: float = CERTAIN) -> PooledSandbox:
        """A fresh sandbox with the base environment mounted (or nothing at all), its guest answering. State: booting."""
        environments = stock.base if base else []
        return await self._start(stock, environments, [False] * len(environments), size or self.default_size, worth)

    async def restore(self, stock: Stock, snapshot: wire.Snapshot, *, size: Size | None = None, worth: float = CERTAIN) -> PooledSandbox:
        """A sandbox from a snapshot. A failed restore is counted and raised as errors.Unavailable: boot instead."""
        firsts, directory = stock.snapshots.firsts(snapshot.id), stock.snapshots.directory(snapshot.id)  # it may be removed while we wait our turn
        try:
            sandbox = await self._start(stock, snapshot.environments, firsts, size or self.default_size, worth, snapshot, image_of(directory))
        except Unavailable:
            stock.snapshots.failed(snapshot.id)
            raise
        stock.snapshots.restored(snapshot.id)
        return sandbox

    async def take(self, stock: Stock, snapshot: wire.Snapshot | None, *, size: Size | None = None,
                   worth: float = CERTAIN) -> tuple[PooledSandbox, str]:
        """A sandbox restored from ``snapshot``, else one with nothing imported; and how it came: ``restore``, ``spare`` or ``boot``.

        Raises Busy or Declined (see Admission), or Unavailable.
        """
        if size and size.disk_bytes != self.default_size.disk_bytes:
            return await self.boot(stock, size=size, worth=worth), "boot"  # the scratch of a snapshot has the size it was made with
        if snapshot:
            try:
                return await self.restore(stock, snapshot, size=size, worth=worth), "restore"
            except Unavailable as problem:
                log.warning("falling back to a boot: %s", problem)
        for spare in self.spares():
            if spare.stock is not stock:
                continue
            if size and size != spare.box.size:
                try:
                    spare.box.resize(size)
                except OSError:
                    continue
            spare.become("preparing")
            self.fill_soon()
            return spare, "spare"
        return await self._bare(stock, size, worth), "boot"

    async def _bare(self, stock: Stock, size: Size | None = None, worth: float = CERTAIN) -> PooledSandbox:
        """The base environment and nothing imported: restored where a bare snapshot exists, else booted."""
        bare = stock.snapshots.exact([], stock.base)
        if bare:
            try:
                return await self.restore(stock, bare, size=size, worth=worth)
            except Unavailable as problem:
                log.warning("falling back to a boot: %s", problem)
        return await self.boot(stock, size=size, worth=worth)

    async def _start(self, stock: Stock, environments: list[str], firsts: list[bool], size: Size, worth: float,
                     snapshot: wire.Snapshot | None = None, image: Path | None = None) -> PooledSandbox:
        async with self.admission.room(expected_bytes(snapshot), worth):
            if self._closing:
                raise Busy("shutting down", "sandboxd is stopping", "try again when it runs")
            name, began = f"s{secrets.token_hex(5)}", time.perf_counter()
            try:
                slots = {slot: stock.environments.mount(environment) for slot, environment in enumerate(environments)}
            except OSError as problem:
                raise Unavailable("sandbox did not start", f"an environment cannot be mounted: {problem}", "ephemeral doctor") from problem
            try:
                box = await self.runtime.start(name, size, image, slots, stock.root.path)
            except Unavailable as problem:
                if snapshot:
                    raise  # the caller boots instead
                # Seen once in some hundred starts on a busy machine: the sentry ends before it answers.
                log.warning("starting once more: %s", problem)
                box = await self.runtime.start(f"{name}b", size, None, slots, stock.root.path)
            sandbox = PooledSandbox(box, stock, self.runtime.name, self.runtime.isolation)
            sandbox.adopt_mounts(environments, firsts)
            if snapshot:
                sandbox.restored_from(snapshot)
            self._all[sandbox.id] = sandbox
            try:
                if self._closing:
                    raise Busy("shutting down", "sandboxd is stopping", "try again when it runs")
                if not snapshot and environments:
                    await sandbox.look()
            except Gone as gone:
                self.give_back(sandbox)
                raise Unavailable("sandbox did not start", f"{sandbox.id}: {gone.reason}", "try again") from gone
            except BaseException:
                self.give_back(sandbox)
                raise
            sandbox.start_ms = round((time.perf_counter() - began) * 1000, 3)
            self._measure(sandbox)
        self._changed(sandbox.wire())
        return sandbox

    def _yield_one(self, worth: float) -> bool:
        """Give back a spare, else what the sessions can best do without."""
        spare = next(iter(self.spares()), None)
        if spare and worth > SPARE:
            self.give_back(spare)
            return True
        return self.evict(worth)

    # --------------------------------------------------------------------------------------------- spares

    def fill_soon(self) -> None:
        """Start replacing spares that were taken, in the background."""
        if not self._filling.locked() and not self._closing:
            self._tasks.start(self.fill(), "fill spares")

    async def fill(self) -> None:
        """Boot spares until there are as many as wanted."""
        async with self._filling:
            while len(self.spares()) < self._spares_wanted and not self._closing:
                if self.admission.waiting or self.memory_used_bytes + self.admission.starting_bytes + 2 * TYPICAL_SANDBOX_BYTES > self.admission.budget_bytes:
                    return
                try:
                    sandbox = await self._bare(self._stocks.default, worth=SPARE)
                except Declined:
                    return
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
            if sandbox.state == "spare" and not sandbox.alive:
                self.give_back(sandbox)  # a session's own is missed by the session
            elif not (sandbox.box.frozen and sandbox.measured_frozen):
                self._measure(sandbox)
        self.admission.relieve()
        self.admission.changed()

    def _measure(self, sandbox: PooledSandbox) -> None:
        with contextlib.suppress(OSError):
            sandbox.memory_bytes = sandbox.box.usage().memory_bytes
        sandbox.measured_frozen = sandbox.box.frozen

    def give_back(self, sandbox: PooledSandbox) -> asyncio.Task[None] | None:
        """Delete a sandbox in the background, off anybody's path. None when it is gone already."""
        if self._all.pop(sandbox.id, None) is None:
            return None
        sandbox.become("deleted")
        sandbox.memory_bytes = 0
        self._changed(sandbox.wire())
        self.admission.changed()
        return self._tasks.start(self._delete(sandbox), f"delete {sandbox.id}")

    async def _delete(self, sandbox: PooledSandbox) -> None:
        async with self._deleting:
            await sandbox.release()

    async def close(self) -> None:
        """Delete every sandbox and wait until nothing of them is left."""
        self._closing = True
        self.admission.close()
        while True:
            for sandbox in self.all():
                self.give_back(sandbox)
            await self._tasks.settle()
            if not self._all and not self.admission.starting_bytes:  # one that was starting meanwhile is here only now
                return
            await asyncio.sleep(0.02)


async def bring_to_rest(sandbox: PooledSandbox) -> None:
    """Settle its heap and freeze it. A sandbox that dies here is noticed by its next user."""
    with contextlib.suppress(Gone):
        await sandbox.settle()
    sandbox.box.freeze()
