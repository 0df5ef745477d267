"""Snapshots: environments booted, with modules imported, checkpointed; kept by everything that makes them valid.

Two folders: what ``ephemeral setup`` made ahead (shared, in STORE) and what this daemon learned (in STATE). A key is the
hash of the runtime's fingerprint, the environments in slot order and the modules; a snapshot of another fingerprint is
not even seen.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from pydantic import ValidationError

from ephemeral import wire

log = logging.getLogger(__name__)

FAILURES_ALLOWED = 2
"""A snapshot that failed to restore this often, and not once did in between, is removed: it is damaged, or the machine has changed under it."""


class Snapshots:
    """The snapshots that are valid on this host now. ``changed`` is called with each new or changed one."""

    def __init__(self, fingerprint: str, shared: Path, learned: Path, changed: Callable[[wire.Snapshot], None], root: str = "default"):
        self._fingerprint = fingerprint[:16]
        self._root = root
        self._folders = {"shared": shared / self._fingerprint, "learned": learned / self._fingerprint}
        self._changed = changed
        self._all: dict[str, tuple[wire.Snapshot, Path, list[bool]]] = {}
        self._failing: dict[str, int] = {}
        """Restores that failed one after the other, by snapshot."""
        for folder in self._folders.values():
            for file in sorted(folder.glob("*/snapshot.json")) if folder.is_dir() else ():
                self._load(file)

    def all(self) -> list[wire.Snapshot]:
        return [snapshot for snapshot, _, _ in list(self._all.values())]  # trim() works in a thread

    def key(self, modules: Sequence[str], environments: Sequence[str]) -> str:
        return hashlib.sha256(json.dumps([self._fingerprint, list(environments), sorted(modules)]).encode()).hexdigest()[:16]

    def exact(self, modules: Sequence[str], environments: Sequence[str]) -> wire.Snapshot | None:
        found = self._all.get(self.key(modules, environments))
        return found[0] if found else None

    def directory(self, snapshot_id: str) -> Path:
        return self._all[snapshot_id][1]

    def firsts(self, snapshot_id: str) -> list[bool]:
        """For each of its environments: whether it wins over the base environment."""
        return self._all[snapshot_id][2]

    def reserve(self, snapshot_id: str, *, shared: bool = False) -> Path:
        """An empty directory to make a snapshot in; keep() publishes it."""
        draft = self._folders["shared" if shared else "learned"] / f".{snapshot_id}-{time.monotonic_ns()}"
        (draft / "image").mkdir(parents=True)
        return draft

    def keep(self, draft: Path, modules: Sequence[str], environments: Sequence[str], firsts: list[bool], import_ms: float) -> wire.Snapshot:
        """Publish a finished snapshot by renaming its directory: nobody ever sees half of one."""
        snapshot = wire.Snapshot(
            id=self.key(modules, environments), environments=list(environments), modules=sorted(modules), root=self._root, import_ms=import_ms,
            size_bytes=sum(file.stat().st_size for file in (draft / "image").iterdir()), created_at=time.time())
        (draft / "snapshot.json").write_text(json.dumps({"snapshot": snapshot.model_dump(), "firsts": firsts}))
        final = draft.parent / snapshot.id
        shutil.rmtree(final, ignore_errors=True)
        draft.rename(final)
        self._all[snapshot.id] = (snapshot, final, firsts)
        self._changed(snapshot)
        return snapshot

    def trim(self, budget_bytes: int, in_use: Collection[str] = ()) -> int:
        """Remove learned snapshots, those restored longest ago first, until they take no more than ``budget_bytes`` (0: no limit). Those
        ``in_use`` stay, though a restored sandbox reads nothing of its image any more. Returns the bytes of all that are left. Blocking."""
        learned = sorted((entry for entry in list(self._all.values()) if entry[1].parent == self._folders["learned"]), key=lambda entry: _used_at(entry[1]))
        total = sum(snapshot.size_bytes for snapshot, _, _ in learned)
        for snapshot, directory, _ in learned:
            if not budget_bytes or total <= budget_bytes:
                break
            if snapshot.id not in in_use:
                log.info("snapshot %s (%s) was restored longest ago: removed for the disk budget", snapshot.id, " ".join(snapshot.modules))
                self._all.pop(snapshot.id, None)
                shutil.rmtree(directory, ignore_errors=True)
                total -= snapshot.size_bytes
        return sum(snapshot.size_bytes for snapshot in self.all())

    def restored(self, snapshot_id: str) -> None:
        with contextlib.suppress(OSError, KeyError):
            os.utime(self._all[snapshot_id][1] / "snapshot.json")
        self._failing.pop(snapshot_id, None)
        self._count(snapshot_id, restores=1)

    def failed(self, snapshot_id: str) -> None:
        """Count a failed restore; remove the snapshot when it keeps failing."""
        snapshot = self._count(snapshot_id, failures=1)
        if snapshot is None:
            return
        self._failing[snapshot_id] = failures = self._failing.get(snapshot_id, 0) + 1
        if failures >= FAILURES_ALLOWED:
            log.warning("snapshot %s (%s) failed to restore %d times: removed", snapshot.id, " ".join(snapshot.modules), failures)
            del self._failing[snapshot_id]
            _, directory, _ = self._all.pop(snapshot_id)
            shutil.rmtree(directory, ignore_errors=True)

    def _count(self, snapshot_id: str, restores: int = 0, failures: int = 0) -> wire.Snapshot | None:
        if snapshot_id not in self._all:
            return None
        snapshot, directory, firsts = self._all[snapshot_id]
        snapshot = snapshot.model_copy(update={"restores": snapshot.restores + restores, "failures": snapshot.failures + failures})
        self._all[snapshot_id] = (snapshot, directory, firsts)
        self._changed(snapshot)
        return snapshot

    def _load(self, file: Path) -> None:
        try:
            content = json.loads(file.read_text())
            snapshot = wire.Snapshot.model_validate(content["snapshot"])
            firsts = [bool(first) for first in content["firsts"]]
        except (OSError, ValueError, KeyError, TypeError, ValidationError) as problem:
            log.warning("snapshot %s cannot be read and is left out: %s", file.parent, problem)
            return
        self._all[snapshot.id] = (snapshot, file.parent, firsts)


def _used_at(directory: Path) -> float:
    """When a snapshot was last restored, or made."""
    with contextlib.suppress(OSError):
        return (directory / "snapshot.json").stat().st_mtime
    return 0.0


def clear_out(folders: Iterable[Path], valid: Collection[str]) -> None:
    """Remove what is valid for other builds, kernels, guests or root filesystems than those of the fingerprints ``valid``, and what was
    left half-made."""
    kept = {fingerprint[:16] for fingerprint in valid}
    for folder in folders:
        for entry in folder.iterdir() if folder.is_dir() else ():
            for stale in [entry] if entry.name not in kept else list(entry.glob(".*")):
                shutil.rmtree(stale, ignore_errors=True)
