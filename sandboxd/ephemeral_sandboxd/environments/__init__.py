"""The environments room: package names in, a directory to import from out.

    names ─policy▶ admitted ─resolve▶ lock ─store▶ unpacked wheels ─compose▶ one directory

``Environments`` is the door. Beside it other rooms use ``mounts`` (binds, overlays, a private namespace) and ``errors``.
"""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn, TypeVar

from ephemeral import names, settings, wire
from ephemeral_sandboxd import mounts
from ephemeral_sandboxd.environments import base as bases
from ephemeral_sandboxd.environments import locks
from ephemeral_sandboxd.environments.base import Base
from ephemeral_sandboxd.environments.compose import compose
from ephemeral_sandboxd.environments.errors import NoSuchEnvironment, PackageRefused, StoreFull
from ephemeral_sandboxd.environments.index import Index
from ephemeral_sandboxd.environments.policy import Policy
from ephemeral_sandboxd.environments.records import Damaged
from ephemeral_sandboxd.environments.resolve import Lock, Resolver, Wheel
from ephemeral_sandboxd.environments.scrub import ScrubReport
from ephemeral_sandboxd.environments.shelf import RECENT_SECONDS, Entry, Evicted, Shelf, StoreUsage
from ephemeral_sandboxd.environments.store import Compiler, Progress, Store
from ephemeral_sandboxd.environments.target import Target
from ephemeral_sandboxd.errors import BadRequest, Refused, Unavailable

__all__ = ["Base", "Compiler", "Environments", "Evicted", "Lock", "Prepared", "Progress", "ScrubReport", "Store", "StoreUsage", "Wheel"]

T = TypeVar("T")

log = logging.getLogger(__name__)

Readiness = Literal["environment", "wheels", "cold"]

_ROOM_BYTES = 256 << 20
"""At least so much is freed when the disk is full."""


@dataclass(frozen=True)
class Prepared:
    """An environment that can be mounted now.

    ``readiness``: ``environment`` if nothing had to be resolved or fetched, ``wheels`` if it was resolved now from wheels in the store,
    ``cold`` if something was downloaded. ``stages`` has ``resolve_ms``, ``download_ms`` and ``compose_ms``. ``replaces_base``: it
    conflicts with the base environment and holds everything it needs itself, so it must come before the base on the search path.
    """

    environment: wire.Environment
    readiness: Readiness
    stages: dict[str, float]
    replaces_base: bool


@dataclass(frozen=True)
class _Composition:
    """Where an environment is mounted, of which directories (as numbers), and the store's count of changes when that was last compared."""

    path: Path
    layers: tuple[int, ...]
    changes: int


class Environments:
    """All environments of one store, for one Python.

    ``store`` keeps everything that is worth keeping; a Store instead of its path is shared with others (for other Pythons) in this process.
    ``mounts`` is a directory for mount points, its content is this process's alone. ``glibc`` is that of the sandboxes' root filesystem.
    ``compiler`` byte-compiles wheels somewhere safe (see store.Compiler); without one, wheels are imported from source.
    Settings (index, policy, base list, budget) are read at construction, which raises BadRequest when they contradict each other.
    """

    def __init__(self, store: Path | Store, mounts: Path, *, python: str = "3.11", glibc: tuple[int, int] = (2, 36), compiler: Compiler | None = None) -> None:
        self.python = python
        self._mounts = mounts
        self._compiler = compiler
        target = Target(python, glibc=glibc)
        index = Index.configured(target)
        self._policy = Policy.configured()
        self._root = store.root if isinstance(store, Store) else store
        self._resolver = Resolver(self._root, index, self._policy)
        self._store = store.share() if isinstance(store, Store) else Store(store, index)
        self._shelf = Shelf(self._root, settings.get("disk_budget_bytes"), index.uv, target)
        self._held: dict[str, int] = {}
        """Environments that this process has mounted -> the descriptor that keeps them."""
        self._composed: dict[str, _Composition] = {}
        """By the name of the mount point: an environment is composed a second time once its wheels are compiled."""
        self._composing = threading.Lock()
        self._base_file = bases.record(self._root, target)
        self.base: Base | None = self._open_base()
        on = (None, self.base.id if self.base else None)
        self._records = {entry.lock.id: entry for entry in self._shelf.ours() if entry.lock.on_base in on and not (self.base and entry.lock.id == self.base.id)}

    # ---------------------------------------------------------------------------------------------------------- base

    def _open_base(self) -> Base | None:
        """The current base. A damaged record is made again from what the list resolved to, where that is known."""
        try:
            return bases.load(self._base_file)
        except Damaged as problem:
            log.error("%s cannot be read: %s", self._base_file, problem)
        try:
            requirements = bases.parse_requirements(bases.requirements_file())
            if lock := self._resolver.known(requirements):
                base = Base(lock, bases.list_hash(requirements, self.python), time.time())
                bases.save(base, self._base_file)
                log.warning("%s was made again from what its list had resolved to", self._base_file)
                return base
        except (OSError, PackageRefused):
            pass  # make_base() says what is wrong with the list
        log.error("there is no base environment for Python %s: `ephemeral setup` makes it again", self.python)
        return None

    def base_is_current(self) -> bool:
        """Whether the base environment was made from the configured list, as it stands now. Looks at no wheel."""
        try:
            return self.base is not None and self.base.list_hash == bases.list_hash(bases.parse_requirements(bases.requirements_file()), self.python)
        except (OSError, PackageRefused):
            return False  # make_base() says what is wrong with the list

    async def make_base(self, progress: Progress | None = None) -> wire.Environment:
        """Makes the base environment of the configured list current, compiled if there is a compiler; returns it.

        One that was made from the same list stays, its wheels checked and what is missing of them fetched. Raises Unresolvable,
        IndexUnreachable, BadWheel, StoreFull, BadRequest or PackageRefused (the list); the base before it then stays current.
        """
        file = bases.requirements_file()
        try:
            requirements = bases.parse_requirements(file)
        except OSError as error:
            raise BadRequest("no base list", f"{file}: {error.strerror}", "set EPHEMERAL_BASE to a file with one package a line") from None
        if not requirements:
            raise BadRequest("empty base list", os.fspath(file), "write one package a line, or unset EPHEMERAL_BASE")
        wanted = bases.list_hash(requirements, self.python)
        current = self.base
        if current is None or current.list_hash != wanted:
            if progress:
                progress("resolve", 0, 1)
            lock = (await self._with_room(lambda: self._resolver.resolve(requirements))).lock
            current = Base(lock, wanted, time.time())
        wheels = current.lock.wheels
        await self._with_room(lambda: self._store.ensure(wheels, progress), wheels)
        if self._compiler:
            await self._store.compile([wheel.sha256 for wheel in wheels], self._compiler, progress, self.python)
        if self.base and self.base.id != current.id:
            before = self._records[self.base.id] = Entry(self.base.lock, self.base.created_at, time.time())  # sandboxes that run still stand on it
            await self._with_room(lambda: asyncio.to_thread(self._shelf.save, before.lock, before.created_at))
        await self._with_room(lambda: asyncio.to_thread(bases.save, current, self._base_file))
        self.base = current
        return self._base_environment(current)

    # ----------------------------------------------------------------------------------------------- names and content

    def check(self, name: str) -> str | None:
        """Why ``name`` (or ``name==version``) may not be fetched, as one sentence that says what would allow it; None if it may."""
        return self._policy.check(name)

    def provided_by(self, env_ids: Iterable[str]) -> set[str]:
        """Packages (normal names) importable from these environments, equivalent ones included: where ``opencv-python-headless``
        is, ``opencv-python`` counts as provided. Ids that name nothing provide nothing."""
        provided: set[str] = set()
        for environment in env_ids:
            lock = self._lock(environment)
            for name in lock.packages if lock else ():
                provided.update(names.equivalents(name), (name,))
        return provided

    # --------------------------------------------------------------------------------------------------------- prepare

    async def prepare(self, packages: Sequence[str], progress: Progress | None = None) -> Prepared:
        """Makes ``packages`` (``name`` or ``name==version``) mountable beside the base, with what they depend on.

        What the base already holds is not prepared again: if that is all of it, the base itself is the answer. Raises
        PackageRefused, Unresolvable, IndexUnreachable, BadWheel or StoreFull. Requests at the same time share their work, and one that
        is cancelled leaves it running for the next.
        """
        requirements = {self._policy.admit(package) for package in packages}
        base = self.base
        if base:
            requirements = {needed for needed in requirements
                            if needed.name not in base.packages or not needed.met_by(base.packages[needed.name])}
        if base and not requirements:
            return Prepared(self._base_environment(base), "environment", {"resolve_ms": 0.0, "download_ms": 0.0, "compose_ms": 0.0}, False)

        clock = _Clock()
        wanted = [str(needed) for needed in sorted(requirements)]
        resolution = await self._with_room(lambda: self._resolver.resolve(wanted, base.lock if base else None))
        lock = resolution.lock
        for name in lock.packages:
            self._policy.forbid(name)
        clock.lap("resolve_ms")
        fetched = await self._fetch(lock, progress)
        clock.lap("download_ms")
        try:
            await self._mount_anew(lock)
        except NoSuchEnvironment:  # another daemon's eviction was faster than its record could tell us
            fetched += await self._fetch(lock, progress)
            await self._mount_anew(lock)
        clock.lap("compose_ms")
        readiness: Readiness = "cold" if fetched else "environment" if resolution.cached else "wheels"
        return Prepared(self._environment(lock.id), readiness, clock.laps, base is not None and lock.on_base is None)

    def mount(self, env_id: str) -> Path:
        """The host directory that holds environment ``env_id``, composed if it is not yet. To be shown to a sandbox read-only.

        An environment mounted before its wheels were compiled gets a second, compiled directory from then on; the first stays for
        those who have it. Raises NoSuchEnvironment (its wheels are gone: prepare() brings them back), Unavailable when it is the base whose
        wheels are gone, or OSError when the kernel refuses.
        """
        lock = self._lock(env_id)
        if lock is None:
            raise NoSuchEnvironment(env_id)
        with self._composing:
            try:
                path = self._compose(lock)
            except FileNotFoundError:
                # Another process may have made or discarded byte code; or it has taken the wheels.
                self._store.forget(wheel.sha256 for wheel in lock.wheels)
                try:
                    path = self._compose(lock)
                except FileNotFoundError:
                    self._wheels_are_gone(lock)
        self._touch(env_id)
        return path

    def _compose(self, lock: Lock) -> Path:
        """Hold and compose an environment, or find that what was composed before still is of the right wheels. Raises OSError."""
        name = f"{lock.id}-compiled" if self._compiled(lock) else lock.id
        before = self._composed.get(name)
        changes = self._store.changes
        if before is not None and before.changes == changes and lock.id in self._held:
            return before.path
        is_base = self.base is not None and lock.id == self.base.id
        with self._shelf.undisturbed():
            if lock.id not in self._held:
                record = self._records.get(lock.id)
                self._held[lock.id] = self._shelf.hold(lock, record.created_at if record else time.time())
            layers = [self._store.layer(wheel.sha256, self.python) for wheel in lock.wheels]
            numbers = tuple(layer.stat().st_ino for layer in layers)
            if before is not None and before.layers == numbers:
                path = before.path
            else:
                links = self._root / "linked" / name
                if before is not None:
                    self._store.discard(links)
                path = compose(layers, self._mounts / name, links)
        self._composed[name] = _Composition(path, numbers, changes)
        if is_base and self.base is not None:
            self.base = dataclasses.replace(self.base, path=path)
        return path

    def _wheels_are_gone(self, lock: Lock) -> NoReturn:
        if lock.id not in self._composed and f"{lock.id}-compiled" not in self._composed:  # else a sandbox may stand on what was composed before
            locks.give_back([self._held.pop(lock.id, None)])
        if self.base and lock.id == self.base.id:
            raise Unavailable("base environment damaged", f"wheels of {lock.id} are gone from the store", "`ephemeral setup` fetches them again") from None
        self._records.pop(lock.id, None)
        raise NoSuchEnvironment(lock.id, "its wheels were evicted; prepare the packages again") from None

    # ---------------------------------------------------------------------------------------------------------- upkeep

    async def usage(self) -> StoreUsage:
        """What the whole store takes, all Pythons together."""
        return await asyncio.to_thread(self._shelf.usage)

    async def evict(self, keep: Collection[str] = (), *, wanted_bytes: int = 0) -> Evicted:
        """Come down to the disk budget, or free ``wanted_bytes``: never what is mounted by any process, pinned, in ``keep``, or a base.

        ``keep`` are the environments under sandboxes now: what else this process has composed is taken apart first.
        """
        for env_id in [held for held in self._held if held not in keep and held in self._records]:
            if not self._just_used(env_id):
                self._let_go(env_id)
        done = await asyncio.to_thread(self._shelf.evict, keep, wanted_bytes=wanted_bytes)
        for env_id in done.environments:
            self._records.pop(env_id, None)
        self._store.forget(done.wheels)
        return done

    async def drop(self, env_id: str, mounted: Collection[str] | None = None) -> None:
        """Forget an environment. ``mounted``: those under sandboxes now; not said, it is all that this process has composed.

        Raises NoSuchEnvironment; Refused for a base, or while something has it mounted or used it a moment ago.
        """
        if self.base and env_id == self.base.id:
            raise Refused("environment in use", f"{env_id} is the base environment", "EPHEMERAL_BASE names another list; `ephemeral setup` makes it")
        if env_id not in self._records:
            raise NoSuchEnvironment(env_id)
        if mounted is not None and env_id not in mounted and env_id in self._held:
            if self._just_used(env_id):
                raise Refused("environment in use", f"{env_id} was used a moment ago and may be on its way into a sandbox", f"try again in {RECENT_SECONDS:.0f} s", 409)
            self._let_go(env_id)
        if not await asyncio.to_thread(self._shelf.drop, env_id):
            raise Refused("environment in use", f"{env_id} is mounted in a sandbox", "end the sessions that use it: GET /v1/sandboxes", 409)
        self._records.pop(env_id, None)

    async def pin(self, env_id: str, pinned: bool) -> None:
        """Keep an environment whatever the disk budget says, or no longer. Raises NoSuchEnvironment."""
        if self._lock(env_id) is None:
            raise NoSuchEnvironment(env_id)
        await asyncio.to_thread(self._shelf.pin, env_id, pinned)

    async def scrub(self) -> ScrubReport:
        """Check every wheel of the store (whatever its Python) against its own hashes, and every record; for quiet times.

        Damaged wheels are fetched again where something names them, and discarded otherwise. Damaged records are written again where this
        process knows what they were, and taken away otherwise.
        """
        records = await asyncio.to_thread(self._tidy)
        report = await self._store.scrub(await asyncio.to_thread(self._shelf.named))
        report.records.update(records)
        if (report.damaged or report.recompile) and self._compiler:
            await self.compile_pending()
        log.info("%d wheels checked: %d damaged, %d of those fetched again; byte code of %d made again; %d damaged records",
                 report.checked, len(report.damaged), len(report.healed), len(report.recompile), len(report.records))
        return report

    def _tidy(self) -> dict[str, str]:
        found = self._shelf.tidy()
        for name, trouble in found.items():
            log.warning("%s in the store was damaged (%s): taken away", name, trouble)
        if self.base and self._base_file.name in found:
            bases.save(self.base, self._base_file)
            log.warning("%s was written again", self._base_file)
        for env_id, entry in list(self._records.items()):
            if f"environments/{env_id}.json" in found:
                self._shelf.save(entry.lock, entry.created_at)
        return found

    def _let_go(self, env_id: str) -> None:
        """Take a composition apart that no sandbox stands on; those that did keep what they see."""
        with self._composing:
            for name in (env_id, f"{env_id}-compiled"):
                composed = self._composed.pop(name, None)
                if composed is not None:
                    self._take_apart(composed)
            locks.give_back([self._held.pop(env_id, None)])

    def _take_apart(self, composed: _Composition) -> None:
        if composed.path.parent == self._mounts:
            mounts.unmount(composed.path)
            composed.path.rmdir()

    def _just_used(self, env_id: str) -> bool:
        """So that it may be on its way into a sandbox."""
        return (self._records[env_id].used_at or 0.0) > time.time() - RECENT_SECONDS

    async def _fetch(self, lock: Lock, progress: Progress | None) -> int:
        """Has the lock's wheels in the store, marked as used; returns how many were fetched."""
        if lock.id not in self._held:
            await asyncio.to_thread(self._store.use, [wheel.sha256 for wheel in lock.wheels])
        return await self._with_room(lambda: self._store.ensure(lock.wheels, progress), lock.wheels)

    async def _with_room(self, work: Callable[[], Awaitable[T]], wheels: Iterable[Wheel] = ()) -> T:
        """``work`` done; where the disk is full room is made, once. Raises StoreFull and what else ``work`` raises."""
        try:
            return await self._on_disk(work)
        except StoreFull:
            freed = await self.evict(list(self._held), wanted_bytes=max(_ROOM_BYTES, 4 * sum(wheel.size for wheel in wheels)))
            if not freed.freed_bytes:
                raise
            return await self._on_disk(work)

    async def _on_disk(self, work: Callable[[], Awaitable[T]]) -> T:
        try:
            return await work()
        except OSError as problem:
            raise (StoreFull(f"no space left in {self._root}") if problem.errno in (errno.ENOSPC, errno.EDQUOT) else problem) from None

    def _locks(self) -> list[Lock]:
        return [*([self.base.lock] if self.base else []), *(record.lock for record in self._records.values())]

    # --------------------------------------------------------------------------------------------- compiling, listing

    async def compile_pending(self) -> int:
        """Byte-compiles the wheels of all environments that are not compiled yet; returns how many wheels that were. For the background."""
        if self._compiler is None:
            return 0
        return await self._store.compile([wheel.sha256 for lock in self._locks() for wheel in lock.wheels], self._compiler, python=self.python)

    async def uv(self, cache: Path) -> tuple[list[str], dict[str, str]]:
        """Arguments and environment for a uv of the caller's own that keeps to the same index, private names and minimum age; its cache is
        in the directory ``cache``."""
        return await self._resolver.uv(cache)

    def list(self) -> list[wire.Environment]:
        """All environments, the base first, then the newest first."""
        records = sorted(self._records.items(), key=lambda item: item[1].created_at, reverse=True)
        return [*([self._base_environment(self.base)] if self.base else []), *(self._environment(key) for key, _ in records)]

    async def close(self) -> None:
        """Stops what runs and takes the mounts away; sandboxes that have them keep what they see."""
        await self._resolver.close()
        await self._store.close()
        with self._composing:
            while self._composed:
                self._take_apart(self._composed.popitem()[1])
            locks.give_back(self._held.values())
            self._held.clear()

    # ------------------------------------------------------------------------------------------------------- inside

    def _lock(self, env_id: str) -> Lock | None:
        if self.base and env_id == self.base.id:
            return self.base.lock
        record = self._records.get(env_id)
        return record.lock if record else None

    def _compiled(self, lock: Lock) -> bool:
        return all(self._store.compiled(wheel.sha256, self.python) for wheel in lock.wheels)

    async def _mount_anew(self, lock: Lock) -> None:
        """Mount what was just resolved and fetched; its record is written on the way. Raises as mount() does."""
        self._records.setdefault(lock.id, Entry(lock, time.time()))
        await self._with_room(lambda: asyncio.to_thread(self.mount, lock.id))

    def _touch(self, env_id: str) -> None:
        record = self._records.get(env_id)
        if record:
            record.used_at = time.time()
            try:
                self._shelf.touch(env_id)
            except OSError as error:
                log.debug("last use of environment %s not kept: %s", env_id, error)

    def _environment(self, env_id: str) -> wire.Environment:
        record = self._records[env_id]
        return self._wire(record.lock, record.created_at, record.used_at, base=False)

    def _base_environment(self, base: Base) -> wire.Environment:
        return self._wire(base.lock, base.created_at, None, base=True)

    def _wire(self, lock: Lock, created_at: float, last_used_at: float | None, *, base: bool) -> wire.Environment:
        return wire.Environment(
            id=lock.id, python=lock.python, requested=list(lock.requested), packages=lock.packages,
            size_bytes=sum(self._store.size(wheel.sha256) for wheel in lock.wheels), compiled=self._compiled(lock), base=base,
            pinned=self._shelf.pinned(lock.id), created_at=created_at, last_used_at=last_used_at)


class _Clock:
    """Milliseconds between laps."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = (now - self._since) * 1000
        self._since = now

