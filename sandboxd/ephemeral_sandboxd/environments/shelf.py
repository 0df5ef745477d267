"""What the store holds altogether, whoever uses it: how much disk that takes, what may go, and what has to stay.

A store may serve several daemons and several Pythons. An environment that a process has mounted is held by a shared lock on
``STORE/environments/<id>.lock``, which ends with that process however it ends; what is held, pinned, or part of a base stays.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ephemeral_sandboxd.environments.resolve import Lock, Wheel

log = logging.getLogger(__name__)

RECENT_SECONDS = 300.0
"""What was made or used so lately may be on its way into a sandbox."""


@dataclass(frozen=True)
class StoreUsage:
    """Bytes on disk by kind, and what they may be together (0: no limit)."""

    wheels_bytes: int
    linked_bytes: int
    uv_cache_bytes: int
    wheels: int
    environments: int
    budget_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.wheels_bytes + self.linked_bytes + self.uv_cache_bytes


@dataclass
class Evicted:
    """What an eviction gave back."""

    freed_bytes: int = 0
    environments: list[str] = field(default_factory=list)
    wheels: list[str] = field(default_factory=list)


@dataclass
class _Entry:
    """An environment's record on disk."""

    lock: Lock
    file: Path
    used_at: float

    @property
    def id(self) -> str:
        return self.lock.id

    @property
    def hashes(self) -> set[str]:
        return {wheel.sha256 for wheel in self.lock.wheels}


class Shelf:
    """Everything here blocks, and may be called from any thread."""

    def __init__(self, store: Path, budget_bytes: int, uv: str):
        self._store = store
        self._budget = budget_bytes
        self._uv = uv

    def usage(self) -> StoreUsage:
        wheels = list(self._wheels())
        return StoreUsage(
            wheels_bytes=sum(size for _, size in wheels), linked_bytes=_size(self._store / "linked"), uv_cache_bytes=_size(self._store / "uv"),
            wheels=len(wheels), environments=len(list(self._entries())), budget_bytes=self._budget)

    def evict(self, keep: Collection[str] = (), *, wanted_bytes: int = 0) -> Evicted:
        """Come down to the budget (or free ``wanted_bytes``): uv's cache first, then wheels that nothing names, then the environments used
        longest ago with the wheels that only they hold. ``keep``: environments that the caller has in use."""
        over = self.usage().total_bytes - self._budget if self._budget else 0
        over = max(over, wanted_bytes)
        done = Evicted()
        if over <= 0:
            return done
        for verb in ("prune", "clean"):
            if done.freed_bytes < over:
                done.freed_bytes += self._shrink_uv(verb)
        entries = sorted(self._entries(), key=lambda entry: entry.used_at)
        kept = {wheel.sha256 for lock in self._base_locks() for wheel in lock.wheels}
        sizes = dict(self._wheels())
        named: dict[str, int] = {}
        for entry in entries:
            for sha256 in entry.hashes:
                named[sha256] = named.get(sha256, 0) + 1
        for sha256 in sizes:
            if done.freed_bytes >= over:
                return done
            if sha256 not in kept and sha256 not in named:
                self._remove_wheel(sha256, sizes, done)
        for entry in entries:
            if done.freed_bytes >= over:
                break
            if entry.id in keep or self._pinned(entry.id) or not self._drop(entry.id, entry.used_at):
                continue
            done.environments.append(entry.id)
            for sha256 in entry.hashes:
                named[sha256] -= 1
                if not named[sha256] and sha256 not in kept and sha256 in sizes:
                    self._remove_wheel(sha256, sizes, done)
        if done.environments or done.wheels:
            log.info("the store gave %d MiB back: %d environments, %d wheels", done.freed_bytes >> 20, len(done.environments), len(done.wheels))
        return done

    def drop(self, env_id: str) -> bool:
        """Forget one environment; its wheels go with the next eviction. False when something holds it."""
        return self._drop(env_id, 0.0)

    def hold(self, env_id: str) -> int:
        """Keep an environment for as long as the returned descriptor is open. Waits while somebody drops it. Raises OSError."""
        self._record(env_id).parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._lock(env_id), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        return descriptor

    def pin(self, env_id: str, pinned: bool) -> None:
        mark = self._record(env_id).with_suffix(".pinned")
        if pinned:
            mark.touch()
        else:
            mark.unlink(missing_ok=True)

    def _pinned(self, env_id: str) -> bool:
        return self._record(env_id).with_suffix(".pinned").exists()

    def pinned(self) -> set[str]:
        return {file.stem for file in (self._store / "environments").glob("*.pinned")}

    def named(self) -> dict[str, Wheel]:
        """The wheels that some environment or base names, by hash."""
        locks = [*self._base_locks(), *(entry.lock for entry in self._entries())]
        return {wheel.sha256: wheel for lock in locks for wheel in lock.wheels}

    # ------------------------------------------------------------------------------------------------ inside

    def _entries(self) -> Iterator[_Entry]:
        for file in (self._store / "environments").glob("*.json"):
            try:
                yield _Entry(_lock_of(file), file, file.stat().st_mtime)
            except (OSError, ValueError, KeyError, TypeError):
                continue  # who loads it says so

    def _base_locks(self) -> list[Lock]:
        found = []
        for file in self._store.glob("base*.json"):
            try:
                found.append(_lock_of(file))
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return found

    def _wheels(self) -> Iterator[tuple[str, int]]:
        """(hash, bytes) of every wheel; the files of compiled trees are hard links, so that only their .pyc count beside."""
        folder = self._store / "wheels"
        for entry in os.scandir(folder) if folder.is_dir() else ():
            try:
                size = int(json.loads(Path(entry.path, "manifest.json").read_bytes())["bytes"])
            except (OSError, ValueError, KeyError, TypeError):
                size = 0
            total = size
            for compiled in Path(entry.path).glob("compiled*.json"):
                try:
                    total += max(0, int(json.loads(compiled.read_bytes())["bytes"]) - size)
                except (OSError, ValueError, KeyError, TypeError):
                    continue
            yield entry.name, total

    def _remove_wheel(self, sha256: str, sizes: dict[str, int], done: Evicted) -> None:
        folder = self._store / "wheels" / sha256
        try:
            if time.time() - folder.stat().st_mtime < RECENT_SECONDS:
                return
        except OSError:
            return
        # Out of sight in one step: nobody ever finds half a wheel.
        doomed = self._store / "building" / f"evicted-{sha256[:16]}-{time.monotonic_ns()}"
        os.rename(folder, doomed)
        shutil.rmtree(doomed, ignore_errors=True)
        done.wheels.append(sha256)
        done.freed_bytes += sizes[sha256]

    def _drop(self, env_id: str, used_at: float) -> bool:
        if time.time() - used_at < RECENT_SECONDS:
            return False
        with self._alone(env_id) as alone:
            if alone:
                self._record(env_id).unlink(missing_ok=True)
                self._record(env_id).with_suffix(".pinned").unlink(missing_ok=True)
                for tree in (self._store / "linked").glob(f"{env_id}*"):
                    shutil.rmtree(tree, ignore_errors=True)
            return alone

    @contextmanager
    def _alone(self, env_id: str) -> Iterator[bool]:
        """Whether no process has the environment mounted; none can mount it meanwhile."""
        descriptor = os.open(self._lock(env_id), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield True
        except BlockingIOError:
            yield False
        finally:
            os.close(descriptor)

    def _record(self, env_id: str) -> Path:
        return self._store / "environments" / f"{env_id}.json"

    def _lock(self, env_id: str) -> Path:
        return self._record(env_id).with_suffix(".lock")

    def _shrink_uv(self, verb: str) -> int:
        cache = self._store / "uv"
        before = _size(cache)
        if before:
            # Everything in it can be had again; uv knows which of it is in use.
            subprocess.run([self._uv, "cache", verb, "--quiet", "--cache-dir", os.fspath(cache)], stdin=subprocess.DEVNULL, capture_output=True, timeout=300, check=False)
        return max(0, before - _size(cache))


def _lock_of(file: Path) -> Lock:
    content: dict[str, Any] = json.loads(file.read_bytes())
    return Lock.from_json(content["lock"])


def _size(folder: Path) -> int:
    """Bytes of the regular files below ``folder``; 0 where there is none."""
    total = 0
    for directory, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(directory, name)).st_size
            except OSError:
                continue
    return total
