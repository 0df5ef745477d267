"""The root filesystems that setup made, by name: what a sandbox's Python, libraries and command-line tools are.

    STORE/rootfs.json          the default one's record
    STORE/roots/<name>.json    the others'
    STORE/rootfs/<id>/         the files; <id> is a hash of what they hold, so two names may share them
    STORE/rootfs/<id>.lock     held by every process that uses them
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ephemeral_sandboxd.errors import Unavailable

log = logging.getLogger(__name__)

DEFAULT = "default"


@dataclass(frozen=True)
class Root:
    """``python`` and ``glibc`` decide which wheels fit. ``tools`` are command-line programs that it has beyond the usual."""

    name: str
    id: str
    path: Path
    python: str
    """Two numbers, for example 3.11."""
    glibc: tuple[int, int]
    node: bool = False
    tools: tuple[str, ...] = ()
    size_bytes: int = 0
    origin: str = ""
    created_at: float = 0.0


def roots(store: Path) -> dict[str, Root]:
    """All root filesystems of ``store``; ``default`` is always among them. Raises errors.Unavailable when setup was not run."""
    description = store / "rootfs.json"
    try:
        found = {DEFAULT: _read(store, description, DEFAULT)}
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise Unavailable("no root filesystem", f"{description} cannot be read: {problem}", "ephemeral setup") from problem
    for file in sorted((store / "roots").glob("*.json")):
        try:
            if file.stem != DEFAULT:
                found[file.stem] = _read(store, file, file.stem)
        except (OSError, ValueError, KeyError, TypeError) as problem:
            log.warning("root filesystem %s is left out, its record cannot be read: %s", file.stem, problem)
    return found


def hold(root: Root) -> int:
    """Keep ``root`` from being removed for as long as the returned descriptor is open. Raises errors.Unavailable when it is being removed."""
    descriptor = os.open(root.path.with_name(f"{root.id}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise Unavailable("root filesystem is being removed", root.name, "`ephemeral rootfs list` says which there are") from None
    if not root.path.is_dir():  # removed between our reading of its record and now
        os.close(descriptor)
        raise Unavailable("root filesystem was removed", root.name, "`ephemeral rootfs list` says which there are")
    return descriptor


def _read(store: Path, file: Path, name: str) -> Root:
    content: dict[str, Any] = json.loads(file.read_text())
    path = store / "rootfs" / str(content["id"])
    if not (path / "usr").is_dir():
        raise ValueError(f"{path} is gone")
    major, minor = (int(part) for part in str(content["glibc"]).split(".")[:2])
    return Root(
        name=name, id=path.name, path=path, python=".".join(str(content["python"]).split(".")[:2]), glibc=(major, minor),
        node=bool(content.get("node")), tools=tuple(content.get("tools", ())), size_bytes=int(content.get("size_bytes", 0)),
        origin=str(content.get("origin", "")), created_at=float(content.get("created_at", 0.0)))
