"""What the store holds altogether, whoever uses it: how much disk that takes, what may go, and what has to stay.

A store may serve several daemons and several Pythons.

    STORE/environments/<id>.json     an environment's record; the time it was last written or touched is its last use
    STORE/environments/<id>.pinned   it stays whatever the budget says
    STORE/environments/<id>.lock     held by every process that has it mounted, until the process ends, however it ends
    STORE/mounting.lock              held while something is mounted; alone while something is taken away

What is held, pinned, or part of a base stays. Whoever mounts first sees to it that there is a record, so that an eviction knows the wheels.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ephemeral_sandboxd.environments import base as bases
from ephemeral_sandboxd.environments import locks, records
from ephemeral_sandboxd.environments.resolve import RESULTS, UV_CACHE, UV_LOCK, Lock, Wheel
from ephemeral_sandboxd.environments.target import Target

log = logging.getLogger(__name__)

RECENT_SECONDS = 300.0
"""What was made or used so lately may be on its way into a sandbox."""
_UNREADABLE = (OSError, ValueError, KeyError, TypeError)
_UV_SECONDS = 60


@dataclass(frozen=True)
class StoreUsage:
    """Bytes on disk by kind, and what they may be together (0: no limit)."""

    wheels_bytes: int
    linked_bytes: int
    uv_cache_bytes: int
    wheels: int
    environments: int
    budget_bytes: int
    resolutions_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        return self.wheels_bytes + self.linked_bytes + self.uv_cache_bytes + self.resolutions_bytes


@dataclass
class Evicted:
    """What an eviction gave back: bytes, and the ids of environments and hashes of wheels that are gone."""

    freed_bytes: int = 0
    environments: list[str] = field(default_factory=list)
    wheels: list[str] = field(default_factory=list)


@dataclass
class Entry:
    """An environment as its record tells of it; times are wall clock."""

    lock: Lock
    created_at: float
    used_at: float | None = None


class Shelf:
    """Everything here blocks, and may be called from any thread."""

    def __init__(self, store: Path, budget_bytes: int, uv: str, target: Target):
        """``target``: what the environments that are saved here are for."""
        self._store = store
        self._target = target
        self._folder = store / "environments"
        self._budget = budget_bytes
        self._uv = uv
        self._read: dict[str, Lock] = {}
        """Records that were read already: what an id stands for never changes."""
        self._folder.mkdir(parents=True, exist_ok=True)

    # ------------------------------------------------------------------------------------------------ records

    def entries(self) -> dict[str, Lock]:
        """The environments that have a record that can be read."""
        found = {}
        for file in self._folder.glob("*.json"):
            with contextlib.suppress(*_UNREADABLE):
                if file.stem not in self._read:
                    self._read[file.stem] = _load(file)[0]
                found[file.stem] = self._read[file.stem]
        self._read = dict(found)
        return found

    def ours(self) -> Iterator[Entry]:
        """The environments for this Python and glibc. What cannot be read is said, and left out: it is made again when needed."""
        for file in self._folder.glob("*.json"):
            try:
                lock, created_at, glibc = _load(file)
                if lock.python == self._target.python and glibc == self._target.glibc:
                    yield Entry(lock, created_at, file.stat().st_mtime)
            except _UNREADABLE as problem:
                log.warning("environment record %s cannot be read: %s", file, problem)

    def save(self, lock: Lock, created_at: float) -> None:
        """Raises OSError."""
        records.write(self._record(lock.id), {"lock": lock.to_json(), "created_at": created_at, "glibc": list(self._target.glibc)})

    def touch(self, env_id: str) -> None:
        """It is used now."""
        os.utime(self._record(env_id))

    def pin(self, env_id: str, pinned: bool) -> None:
        mark = self._record(env_id).with_suffix(".pinned")
        if pinned:
            mark.touch()
        else:
            mark.unlink(missing_ok=True)

    def pinned(self, env_id: str) -> bool:
        return self._record(env_id).with_suffix(".pinned").exists()

    def named(self) -> dict[str, Wheel]:
        """The wheels that some environment or base names, by hash."""
        return {wheel.sha256: wheel for lock in [*self._bases(), *self.entries().values()] for wheel in lock.wheels}

    def tidy(self) -> dict[str, str]:
        """Take away the records, resolutions and bases that cannot be read: file name -> what is wrong with it. They are made again when needed."""
        damaged = {}
        for file in [*self._folder.glob("*.json"), *(self._store / RESULTS).glob("*.json"), *bases.all_records(self._store)]:
            try:
                if file.parent == self._folder:
                    _load(file)
                else:
                    content = records.read(file)
                    Lock.from_json(content if file.parent != self._store else content["lock"])
            except FileNotFoundError:
                continue
            except _UNREADABLE as problem:
                damaged[f"{file.relative_to(self._store)}"] = str(problem)
                self._read.pop(file.stem, None)
                with contextlib.suppress(OSError):
                    file.unlink()
        return damaged

    # ------------------------------------------------------------------------------------------------ mounting

    @contextlib.contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Nothing is evicted inside the block. Raises OSError."""
        held = locks.take(self._lock("mounting", self._store))
        try:
            yield
        finally:
            locks.give_back([held])

    def hold(self, lock: Lock, created_at: float) -> int:
        """Keep an environment, and have its record, for as long as the returned descriptor is open; called undisturbed(). Raises OSError."""
        if not self._record(lock.id).exists():
            self.save(lock, created_at)
        held = locks.take(self._lock(lock.id))
        assert held is not None  # it was waited for
        return held

    # ------------------------------------------------------------------------------------------------ disk

    def usage(self) -> StoreUsage:
        wheels = list(self._wheels())
        return StoreUsage(
            wheels_bytes=sum(size for _, size in wheels), linked_bytes=_size(self._store / "linked"), uv_cache_bytes=_size(self._store / UV_CACHE),
            wheels=len(wheels), environments=len(self.entries()), budget_bytes=self._budget, resolutions_bytes=_size(self._store / RESULTS))

    def evict(self, keep: Collection[str] = (), *, wanted_bytes: int = 0) -> Evicted:
        """Come down to the budget (or free ``wanted_bytes``): uv's cache first, then wheels that nothing names, then the environments used
        longest ago with the wheels that only they hold. ``keep``: environments that the caller has in use. Raises OSError."""
        done = Evicted()
        with locks.alone(self._lock("evicting", self._store)):  # two at once would both free what one of them has to
            over = max(self.usage().total_bytes - self._budget if self._budget else 0, wanted_bytes)
            if over <= 0:
                return done
            for verb in ("prune", "clean"):
                if done.freed_bytes < over:
                    done.freed_bytes += self._shrink_uv(verb)
            if unknown := self._unknown():
                log.error("no wheel is evicted, because it is not known which ones these need: %s", " ".join(unknown))
                return done
            sizes = dict(self._wheels())
            if done.freed_bytes < over:
                self._evict_unnamed(sizes, over, done)
            for env_id in sorted(self.entries(), key=self._used_at):
                if done.freed_bytes >= over:
                    break
                if env_id not in keep and not self.pinned(env_id):
                    self._evict_environment(env_id, sizes, done)
        if done.environments or done.wheels:
            log.info("the store gave %d MiB back: %d environments, %d wheels", done.freed_bytes >> 20, len(done.environments), len(done.wheels))
        if done.freed_bytes < over:
            log.warning("the store is still %d MiB over: what it holds is mounted, pinned, just used, or a base", (over - done.freed_bytes) >> 20)
        return done

    def drop(self, env_id: str) -> bool:
        """Forget one environment; its wheels go with the next eviction. False when some process holds it."""
        with locks.alone(self._lock("mounting", self._store)):
            return self._forget(env_id)

    # ------------------------------------------------------------------------------------------------ inside

    def _evict_unnamed(self, sizes: dict[str, int], over: int, done: Evicted) -> None:
        """Wheels that no environment holds, and resolutions to environments that are gone."""
        doomed: list[Path] = []
        with locks.alone(self._lock("mounting", self._store)):
            named = self.named()
            done.freed_bytes += self._forget_resolutions({*self.entries(), *(lock.id for lock in self._bases())})
            for sha256 in sorted(sizes.keys() - named.keys(), key=lambda sha256: _mtime(self._store / "wheels" / sha256)):
                if done.freed_bytes >= over:
                    break
                doomed += self._take_out(sha256, sizes, done)
        _delete(doomed)

    def _evict_environment(self, env_id: str, sizes: dict[str, int], done: Evicted) -> None:
        doomed: list[Path] = []
        # One at a time: whoever wants to mount something waits for a few renames, not for the deletion.
        with locks.alone(self._lock("mounting", self._store)):
            entry = self.entries().get(env_id)
            if entry is None or env_id in {lock.id for lock in self._bases()} or time.time() - self._used_at(env_id) < RECENT_SECONDS or not self._forget(env_id):
                return
            done.environments.append(env_id)
            named = self.named()
            for wheel in entry.wheels:
                if wheel.sha256 in sizes and wheel.sha256 not in named:
                    doomed += self._take_out(wheel.sha256, sizes, done)
        _delete(doomed)

    def _take_out(self, sha256: str, sizes: dict[str, int], done: Evicted) -> list[Path]:
        """Out of sight in one step, so that nobody ever finds half a wheel; not when somebody works on it or did just now."""
        folder = self._store / "wheels" / sha256
        try:
            if time.time() - folder.stat().st_mtime < RECENT_SECONDS:
                return []
            with locks.alone(folder, wait=False, directory=True) as alone:
                if not alone:
                    return []
                doomed = self._store / "building" / f"evicted-{sha256[:16]}-{time.monotonic_ns()}"
                os.rename(folder, doomed)
        except FileNotFoundError:
            return []
        done.wheels.append(sha256)
        done.freed_bytes += sizes.pop(sha256)
        return [doomed]

    def _forget(self, env_id: str) -> bool:
        """Called with the mounting lock alone: false when a process holds the environment."""
        lock = self._lock(env_id)
        with locks.alone(lock, wait=False) as alone:
            if alone:
                self._record(env_id).unlink(missing_ok=True)
                self._record(env_id).with_suffix(".pinned").unlink(missing_ok=True)
                for tree in (self._store / "linked").glob(f"{env_id}*"):
                    shutil.rmtree(tree, ignore_errors=True)
                lock.unlink(missing_ok=True)
            return alone

    def _forget_resolutions(self, environments: Collection[str]) -> int:
        """Those that lead to none of ``environments`` and are not of today; returns their bytes."""
        freed = 0
        for file in (self._store / RESULTS).glob("*.json"):
            try:
                about = file.stat()
                if time.time() - about.st_mtime > RECENT_SECONDS and Lock.from_json(records.read(file)).id not in environments:
                    file.unlink()
                    freed += about.st_size
            except _UNREADABLE:
                continue
        return freed

    def _unknown(self) -> list[str]:
        """Bases, and environments that a process has mounted, of which nobody can read what they hold."""
        known = {*self.entries(), *(lock.id for lock in self._bases())}
        found = [file.name for file in bases.all_records(self._store) if _is_damaged(file)]
        for lock in self._folder.glob("*.lock"):
            if lock.stem not in known:
                with locks.alone(lock, wait=False) as alone:
                    if not alone:
                        found.append(lock.stem)
        return found

    def _bases(self) -> list[Lock]:
        found = []
        for file in bases.all_records(self._store):
            with contextlib.suppress(records.Damaged):
                if base := bases.load(file):
                    found.append(base.lock)
        return found

    def _wheels(self) -> Iterator[tuple[str, int]]:
        """(hash, bytes) of every wheel; the files of compiled trees are hard links, so that only their .pyc count beside."""
        folder = self._store / "wheels"
        for entry in os.scandir(folder) if folder.is_dir() else ():
            size = total = _recorded(Path(entry.path, "manifest.json"))
            for compiled in Path(entry.path).glob("compiled*.json"):
                total += max(0, _recorded(compiled) - size)
            yield entry.name, total

    def _used_at(self, env_id: str) -> float:
        return _mtime(self._record(env_id))

    def _record(self, env_id: str) -> Path:
        return self._folder / f"{env_id}.json"

    def _lock(self, name: str, folder: Path | None = None) -> Path:
        return (folder or self._folder) / f"{name}.lock"

    def _shrink_uv(self, verb: str) -> int:
        """Everything in uv's cache can be had again. Not while a uv of ours runs."""
        cache = self._store / UV_CACHE
        before = _size(cache)
        if not before:
            return 0
        with locks.alone(self._store / UV_LOCK, wait=False) as alone:
            if not alone:
                return 0
            environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
            try:
                subprocess.run([self._uv, "cache", verb, "--no-config", "--quiet", "--cache-dir", os.fspath(cache)], stdin=subprocess.DEVNULL,
                               capture_output=True, timeout=_UV_SECONDS, check=False, env=environment)
            except (OSError, subprocess.TimeoutExpired) as problem:
                log.warning("uv's cache was not cleared: %s", type(problem).__name__)
        return max(0, before - _size(cache))


def _load(file: Path) -> tuple[Lock, float, tuple[int, int]]:
    """A record's environment, when it was made, and for which glibc. Raises OSError, ValueError, KeyError or TypeError."""
    content = records.read(file)
    lock = Lock.from_json(content["lock"])
    if lock.id != file.stem:
        raise records.Damaged("it is not the environment that it is called")
    major, minor = content.get("glibc", (2, 36))  # those of older versions were for Debian 12
    return lock, float(content["created_at"]), (int(major), int(minor))


def _is_damaged(base: Path) -> bool:
    try:
        bases.load(base)
        return False
    except records.Damaged:
        return True


def _recorded(file: Path) -> int:
    try:
        return int(records.read(file)["bytes"])
    except _UNREADABLE:
        return 0


def _mtime(path: Path) -> float:
    """0 for what is gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _delete(folders: list[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _size(folder: Path) -> int:
    """Bytes of the regular files below ``folder``; 0 where there is none."""
    total = 0
    for directory, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(directory, name)).st_size
            except OSError:
                continue
    return total
