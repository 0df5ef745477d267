"""Which root filesystems there are.

    STORE/rootfs.json          the record of the default one, which `ephemeral setup` makes
    STORE/roots/<name>.json    the others' records
    STORE/rootfs/<id>/         the files; ``<id>`` is a hash of what they are, so that two names may share them
    STORE/rootfs/<id>.lock     held shared by every sandboxd that uses them
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ephemeral_cli.errors import CommandError
from ephemeral_cli.progress import Reporter

DEFAULT = "default"
RECIPE = 2
"""Raise it when what is written here changes what a root filesystem holds: an older one is then made anew."""
NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,38}[a-z0-9])?")


@dataclass(frozen=True)
class Rootfs:
    """A published root filesystem. ``recipe`` tells whether it is what this version would make.

    ``suite`` is Debian's, for those made of its packages; ``installed`` are the packages that were asked for beyond Python,
    ``packages`` counts all. ``node`` is Node's version. ``tools`` are the command-line programs found in it.
    """

    name: str
    id: str
    python: str
    glibc: str
    origin: str
    recipe: int
    packages: int
    suite: str | None = None
    installed: tuple[str, ...] = ()
    node: str | None = None
    tools: tuple[str, ...] = ()
    size_bytes: int = 0
    created_at: float = 0.0


def file_of(store: Path, name: str) -> Path:
    """Where the record of ``name`` is written."""
    return store / "rootfs.json" if name == DEFAULT else store / "roots" / f"{name}.json"


def directory_of(store: Path, identity: str) -> Path:
    return store / "rootfs" / identity


def read(store: Path, name: str) -> Rootfs | None:
    """The record of ``name``, if it can be read and its files are there."""
    try:
        content: dict[str, Any] = json.loads(file_of(store, name).read_text())
        known = {field.name: content[field.name] for field in dataclasses.fields(Rootfs) if field.name in content}
        listed = {key: tuple(content.get(key, ())) for key in ("installed", "tools")}
        found = Rootfs(**{**known, **listed, "name": name})
        return found if (directory_of(store, found.id) / "usr").is_dir() else None
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def recorded(store: Path, name: str = DEFAULT) -> Rootfs | None:
    """The same, if it is what this version would make."""
    found = read(store, name)
    return found if found and found.recipe == RECIPE else None


def names(store: Path) -> list[str]:
    """The names that have a record, readable or not; the default first."""
    others = sorted(file.stem for file in (store / "roots").glob("*.json") if file.stem != DEFAULT)
    return [*([DEFAULT] if file_of(store, DEFAULT).exists() else []), *others]


def everything(store: Path) -> list[Rootfs]:
    """All that can be used, the default first."""
    return [found for name in names(store) if (found := read(store, name))]


def write(store: Path, rootfs: Rootfs) -> None:
    """Name it. The record before it, if there is one, is replaced in one step."""
    target = file_of(store, rootfs.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    fresh.write_text(json.dumps(dataclasses.asdict(rootfs), indent=1) + "\n")
    os.replace(fresh, target)


@contextmanager
def alone(store: Path, report: Reporter) -> Iterator[None]:
    """Nobody else makes or removes root filesystems of ``store`` meanwhile. Waits for who does."""
    folder = store / "rootfs"
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            report.say("waiting: another `ephemeral` is at work on the root filesystems here")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def unused(store: Path, identity: str) -> Iterator[bool]:
    """Whether no sandboxd uses the files ``identity``; while the block runs none can begin to."""
    lock = store / "rootfs" / f"{identity}.lock"
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        yield False
        return
    try:
        yield True
    finally:
        if not directory_of(store, identity).exists():
            lock.unlink(missing_ok=True)
        os.close(descriptor)


def check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise CommandError(f"{name!r} cannot name a root filesystem", "a name has up to 40 of a-z, 0-9, . _ - and begins and ends with a letter or digit", exit_code=2)


def need_root(typed: str) -> None:
    if os.geteuid() != 0:
        raise CommandError("the files of root filesystems belong to root: this needs root", f"sudo -E .venv/bin/{typed}")
