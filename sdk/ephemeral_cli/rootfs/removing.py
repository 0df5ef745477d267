"""Taking root filesystems away: a name; and files that no name stands for any more, once no sandboxd uses them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from ephemeral_cli.errors import CommandError
from ephemeral_cli.progress import Reporter
from ephemeral_cli.rootfs import records, taming
from ephemeral_cli.setup.processes import run

ENGINE_IMAGE = "ephemeral-rootfs"
"""What sandboxd's `docker` runtime calls the copies that it gives to the engine; the tag is the id."""


def remove(store: Path, name: str, report: Reporter) -> None:
    """Raises CommandError when there is no ``name``, when it is the default, or while a sandboxd uses it."""
    if name == records.DEFAULT:
        raise CommandError("the default root filesystem cannot be removed: sandboxes that ask for none start from it", "`ephemeral rootfs list` says which others there are", exit_code=2)
    if name not in records.names(store):
        raise CommandError(f"there is no root filesystem {name}", "`ephemeral rootfs list` says which there are", exit_code=2)
    records.need_root(f"ephemeral rootfs remove {name}")
    with records.alone(store, report):
        found = records.read(store, name)
        others = _named(store, but=name)
        if found is None or others is None or found.id in others:
            records.file_of(store, name).unlink(missing_ok=True)
        else:
            with records.unused(store, found.id) as free:
                if not free:
                    raise CommandError(f"root filesystem {name} is in use by a sandboxd that runs", "stop it (or `ephemeral up`) first")
                records.file_of(store, name).unlink(missing_ok=True)
                _delete(store, found.id)
        collect(store)


def collect(store: Path) -> None:
    """Remove the files that no record names and no sandboxd uses, and the engine's copies of them. Others are to be kept out."""
    named = _named(store)
    if named is None:
        return
    for directory in (store / "rootfs").iterdir():
        if directory.is_dir() and not directory.name.startswith(".") and directory.name not in named:
            with records.unused(store, directory.name) as free:
                if free:
                    _delete(store, directory.name)


def _named(store: Path, but: str = "") -> set[str] | None:
    """The ids that records other than that of ``but`` name; None when one cannot be read, so that it may be any."""
    found = set()
    for name in records.names(store):
        if name == but:
            continue
        try:
            found.add(str(json.loads(records.file_of(store, name).read_text())["id"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None
    return found


def _delete(store: Path, identity: str) -> None:
    # Renamed first: a half-removed tree must not be found under its id.
    directory = records.directory_of(store, identity)
    dying = directory.with_name(f".making-{identity}-{os.getpid()}")
    os.replace(directory, dying)
    taming.discard(dying)
    if shutil.which("docker"):
        try:
            run(["timeout", "60", "docker", "image", "rm", f"{ENGINE_IMAGE}:{identity}"])
        except CommandError:
            pass  # no engine answers, it never had it, or a container still uses it
