"""The environments room: package names in, a directory to import from out.

    names ─policy▶ admitted ─resolve▶ lock ─store▶ unpacked wheels ─compose▶ one directory

``Environments`` is the door. Beside it other rooms use ``mounts`` (binds, overlays, a private namespace) and ``errors``.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
import threading
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ephemeral import names, settings, wire
from ephemeral_sandboxd import mounts
from ephemeral_sandboxd.environments import base as bases
from ephemeral_sandboxd.environments.base import Base
from ephemeral_sandboxd.environments.compose import compose
from ephemeral_sandboxd.environments.errors import NoSuchEnvironment, PackageRefused, StoreFull
from ephemeral_sandboxd.environments.index import Index
from ephemeral_sandboxd.environments.policy import Policy
from ephemeral_sandboxd.environments.relay import Relay
from ephemeral_sandboxd.environments.resolve import Lock, Resolver, Wheel
from ephemeral_sandboxd.environments.scrub import ScrubReport
from ephemeral_sandboxd.environments.shelf import RECENT_SECONDS, Evicted, Shelf, StoreUsage
from ephemeral_sandboxd.environments.store import Compiler, Progress, Store
from ephemeral_sandboxd.environments.target import Target
from ephemeral_sandboxd.errors import BadRequest, Refused

__all__ = ["Base", "Compiler", "Environments", "Lock", "Prepared", "Progress", "Wheel"]

log = logging.getLogger(__name__)

Readiness = Literal["environment", "wheels", "cold"]


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


@dataclass
class _Record:
    """An environment as kept in STORE/environments/<id>.json; the file's modification time is its last use."""

    lock: Lock
    created_at: float
    last_used_at: float | None = None


class Environments:
    """All environments of one store, for one Python.

    ``store`` keeps everything that is worth keeping; ``mounts`` is a directory for mount points, its content is this process's alone.
    ``compiler`` byte-compiles wheels somewhere safe (see store.Compiler); without one, wheels are imported from source.
    Settings (index, policy, base list) are read at construction.
    """

    def __init__(self, store: Path, mounts: Path, *, python: str = "3.11", glibc: tuple[int, int] = (2, 36), compiler: Compiler | None = None) -> None:
        self.python = python
        self._root = store
        self._mounts = mounts
        self._compiler = compiler
        index = Index.configured(Target(python, glibc=glibc))
        self._policy = Policy.configured()
        self._store = Store(store, index)
        if self._policy.private and not index.url:
            raise BadRequest("half a private index", "beside a private index the public one has to be named", "set EPHEMERAL_INDEX_URL")
        self._resolver = Resolver(store, index, Relay(index, self._policy.route) if self._policy.private else None)
        self._shelf = Shelf(store, settings.get("disk_budget_bytes"), index.uv)
        self._held: dict[str, int] = {}
        """Environments that this process has mounted -> the descriptor that keeps them."""
        self._composed: dict[str, Path] = {}
        """By the name of the mount point: an environment is composed a second time once its wheels are compiled."""
        self._composing = threading.Lock()
        self._base_file = store / ("base.json" if python == "3.11" else f"base-{python}.json")
        found = bases.load(self._base_file)
        self.base: Base | None = found if found and found.lock.python == python else None
        self._records = _load_records(store / "environments", python, self.base)

    # ---------------------------------------------------------------------------------------------------------- base

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
            lock = (await self._resolver.resolve(requirements)).lock
            current = Base(lock, wanted, time.time())
        hashes = [wheel.sha256 for wheel in current.lock.wheels]
        await self._store.ensure(current.lock.wheels, progress)
        if self._compiler:
            await self._store.compile(hashes, self._compiler, progress)
        await asyncio.to_thread(bases.save, current, self._base_file)
        if self.base and self.base.id != current.id:
            self._records[self.base.id] = _Record(self.base.lock, self.base.created_at)  # sandboxes that run still stand on it
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
        resolution = await self._resolver.resolve([str(needed) for needed in sorted(requirements)], base.lock if base else None)
        lock = resolution.lock
        for name in lock.packages:
            self._policy.forbid(name)
        clock.lap("resolve_ms")
        fetched = await self._fetch(lock, progress)
        clock.lap("download_ms")
        await self._record(lock)
        try:
            await asyncio.to_thread(self.mount, lock.id)
        except FileNotFoundError:
            # Another daemon's eviction was faster than its record could tell us.
            self._store.forget(wheel.sha256 for wheel in lock.wheels)
            fetched += await self._fetch(lock, progress)
            await asyncio.to_thread(self.mount, lock.id)
        clock.lap("compose_ms")
        readiness: Readiness = "cold" if fetched else "environment" if resolution.cached else "wheels"
        return Prepared(self._environment(lock.id), readiness, clock.laps, base is not None and lock.on_base is None)

    def mount(self, env_id: str) -> Path:
        """The host directory that holds environment ``env_id``, composed if it is not yet. To be shown to a sandbox read-only.

        An environment mounted before its wheels were compiled gets a second, compiled directory from then on; the first stays for
        those who have it. Raises NoSuchEnvironment, or OSError when the kernel refuses.
        """
        lock = self._lock(env_id)
        if lock is None:
            raise NoSuchEnvironment(env_id)
        compiled = self._compiled(lock)
        name = f"{env_id}-compiled" if compiled else env_id
        with self._composing:
            path = self._composed.get(name)
            if env_id not in self._held:
                self._held[env_id] = self._shelf.hold(env_id)
            if path is None:
                layers = [self._store.layer(wheel.sha256) for wheel in lock.wheels]
                path = self._composed[name] = compose(layers, self._mounts / name, self._root / "linked" / name)
            if self.base and env_id == self.base.id:
                self.base = dataclasses.replace(self.base, path=path)
        self._touch(env_id)
        return path

    # ---------------------------------------------------------------------------------------------------------- upkeep

    async def usage(self) -> StoreUsage:
        """What the whole store takes, all Pythons together."""
        return await asyncio.to_thread(self._shelf.usage)

    async def evict(self, keep: Collection[str] = (), *, wanted_bytes: int = 0) -> Evicted:
        """Come down to the disk budget, or free ``wanted_bytes``: never what is mounted by any process, pinned, in ``keep``, or a base.

        ``keep`` are the environments under sandboxes now: what else this process has composed is taken apart first.
        """
        lately = time.time() - RECENT_SECONDS
        for env_id in [held for held in self._held if held not in keep and held in self._records]:
            if (self._records[env_id].last_used_at or 0.0) < lately:  # else it may be on its way into a sandbox
                self._let_go(env_id)
        done = await asyncio.to_thread(self._shelf.evict, keep, wanted_bytes=wanted_bytes)
        for env_id in done.environments:
            self._records.pop(env_id, None)
        self._store.forget(done.wheels)
        return done

    async def drop(self, env_id: str) -> None:
        """Forget an environment. Raises NoSuchEnvironment; Refused for a base, or while something has it mounted or used it a moment ago."""
        if self.base and env_id == self.base.id:
            raise Refused("environment in use", f"{env_id} is the base environment", "EPHEMERAL_BASE names another list; `ephemeral setup` makes it")
        if env_id not in self._records:
            raise NoSuchEnvironment(env_id)
        if not await asyncio.to_thread(self._shelf.drop, env_id):
            raise Refused("environment in use", f"{env_id} is mounted in a sandbox", "end the sessions that use it: GET /v1/sandboxes", 409)
        self._records.pop(env_id, None)

    async def pin(self, env_id: str, pinned: bool) -> None:
        """Keep an environment whatever the disk budget says, or no longer. Raises NoSuchEnvironment."""
        if self._lock(env_id) is None:
            raise NoSuchEnvironment(env_id)
        await asyncio.to_thread(self._shelf.pin, env_id, pinned)

    async def scrub(self) -> ScrubReport:
        """Check every wheel of the store against its own hashes; what is damaged is fetched again where something names it. For quiet times."""
        report = await self._store.scrub(await asyncio.to_thread(self._shelf.named))
        if report.damaged and self._compiler:
            await self.compile_pending()
        log.info("%d wheels checked, %d damaged, %d of those fetched again", report.checked, len(report.damaged), len(report.healed))
        return report

    def _let_go(self, env_id: str) -> None:
        """Take a composition apart that no sandbox stands on; those that did keep what they see."""
        with self._composing:
            for name in (env_id, f"{env_id}-compiled"):
                path = self._composed.pop(name, None)
                if path is not None and path.parent == self._mounts:
                    mounts.unmount(path)
                    path.rmdir()
            os.close(self._held.pop(env_id))

    async def _fetch(self, lock: Lock, progress: Progress | None) -> int:
        """Has the lock's wheels in the store; a full disk is made room on, once."""
        try:
            return await self._store.ensure(lock.wheels, progress)
        except StoreFull:
            freed = await self.evict(list(self._held), wanted_bytes=max(1 << 28, 4 * sum(wheel.size for wheel in lock.wheels)))
            if not freed.freed_bytes:
                raise
            return await self._store.ensure(lock.wheels, progress)

    def _locks(self) -> list[Lock]:
        return [*([self.base.lock] if self.base else []), *(record.lock for record in self._records.values())]

    # --------------------------------------------------------------------------------------------- compiling, listing

    async def compile_pending(self) -> int:
        """Byte-compiles the wheels of all environments that are not compiled yet; returns how many wheels that were. For the background."""
        if self._compiler is None:
            return 0
        return await self._store.compile([wheel.sha256 for lock in self._locks() for wheel in lock.wheels], self._compiler)

    def list(self) -> list[wire.Environment]:
        """All environments, the base first, then the newest first."""
        records = sorted(self._records.items(), key=lambda item: item[1].created_at, reverse=True)
        return [*([self._base_environment(self.base)] if self.base else []), *(self._environment(key) for key, _ in records)]

    async def close(self) -> None:
        """Stops what runs and takes the mounts away; sandboxes that have them keep what they see."""
        await self._resolver.close()
        await self._store.close()
        with self._composing:
            for path in self._composed.values():
                if path.parent == self._mounts:
                    mounts.unmount(path)
                    path.rmdir()
            self._composed.clear()
            while self._held:
                os.close(self._held.popitem()[1])

    # ------------------------------------------------------------------------------------------------------- inside

    def _lock(self, env_id: str) -> Lock | None:
        if self.base and env_id == self.base.id:
            return self.base.lock
        record = self._records.get(env_id)
        return record.lock if record else None

    def _compiled(self, lock: Lock) -> bool:
        return all(self._store.compiled(wheel.sha256) for wheel in lock.wheels)

    async def _record(self, lock: Lock) -> None:
        if lock.id not in self._records:
            record = self._records[lock.id] = _Record(lock, time.time())
            await asyncio.to_thread(_save_record, self._root / "environments", record)

    def _touch(self, env_id: str) -> None:
        record = self._records.get(env_id)
        if record:
            record.last_used_at = time.time()
            try:
                os.utime(self._root / "environments" / f"{env_id}.json")
            except OSError as error:
                log.debug("last use of environment %s not kept: %s", env_id, error)

    def _environment(self, env_id: str) -> wire.Environment:
        record = self._records[env_id]
        return self._wire(record.lock, record.created_at, record.last_used_at, base=False)

    def _base_environment(self, base: Base) -> wire.Environment:
        return self._wire(base.lock, base.created_at, None, base=True)

    def _wire(self, lock: Lock, created_at: float, last_used_at: float | None, *, base: bool) -> wire.Environment:
        return wire.Environment(
            id=lock.id, python=lock.python, requested=list(lock.requested), packages=lock.packages,
            size_bytes=sum(self._store.size(wheel.sha256) for wheel in lock.wheels), compiled=self._compiled(lock), base=base,
            pinned=lock.id in self._shelf.pinned(), created_at=created_at, last_used_at=last_used_at)


class _Clock:
    """Milliseconds between laps."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = (now - self._since) * 1000
        self._since = now


def _load_records(folder: Path, python: str, base: Base | None) -> dict[str, _Record]:
    """Those for this Python that stand alone or on the current base. Unreadable ones are left out too: they are made again when needed."""
    records: dict[str, _Record] = {}
    for file in folder.glob("*.json"):
        try:
            data: dict[str, Any] = json.loads(file.read_bytes())
            lock = Lock.from_json(data["lock"])
            if lock.python == python and lock.on_base in (None, base.id if base else None):
                records[lock.id] = _Record(lock, float(data["created_at"]), file.stat().st_mtime)
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("environment record %s cannot be read: %s", file, error)
    return records


def _save_record(folder: Path, record: _Record) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{record.lock.id}.json"
    building = file.with_name(f"{file.name}.{os.getpid()}")
    building.write_text(json.dumps({"lock": record.lock.to_json(), "created_at": record.created_at}))
    os.replace(building, file)
