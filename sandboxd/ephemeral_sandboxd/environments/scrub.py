"""The slow check: every file of every wheel against the hashes that came with it.

The quick check at first use (store.Counts) sees what is missing or cut short; this one also sees a byte that has changed. Everything here
blocks, and is meant for a thread of its own.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ephemeral_sandboxd.environments import records
from ephemeral_sandboxd.environments.unpack import RECORD

APPENDED_TO = ("cacert.pem",)
"""Some hosts append their own authority to every CA bundle that they find: then the beginning has to be what the list says."""

PYC_SUM = "pyc_sha256"
"""In a compiled tree's record: pyc_sum() of it when it was made."""

_UNLISTED = (".jws", ".p7s", "RECORD")
"""A wheel's list cannot hold its own hash, nor its signatures."""

@dataclass
class ScrubReport:
    """``damaged``: hash -> the first file that was not what it should be. ``healed``: those fetched again; the rest was discarded, or
    stays damaged while it cannot be had. ``recompile``: wheels whose byte code was damaged and is gone. ``records``: damaged record files,
    and what became of each."""

    checked: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    healed: list[str] = field(default_factory=list)
    recompile: list[str] = field(default_factory=list)
    records: dict[str, str] = field(default_factory=dict)


def politely() -> None:
    """From now on the calling thread gets what the others leave of the processor, and with it of the disk."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


def damage(folder: Path) -> str | None:
    """What is wrong with the wheel unpacked in ``folder``/site: one file's name and the trouble; None when all is as it should be.

    A wheel unpacked by a version that kept no list gets one now: from then on it is held to what it holds today.
    """
    site, record = folder / "site", folder / RECORD
    try:
        records.read(folder / "manifest.json")
        if not record.exists():
            adopt(folder)
            return None
        listed = set()
        for row in csv.reader(record.read_text(encoding="utf-8").splitlines()):
            place = _place(row[0]) if row else None
            if place is None:
                continue
            listed.add(place)
            if len(row) < 3 or (not row[1] and not place.endswith(_UNLISTED)):
                return f"{RECORD}: it has no hash for {place}"
            if row[1] and (trouble := _trouble(site / place, row[1], row[2])):
                return f"{place}: {trouble}"
        for file in _files(site):
            name = file.relative_to(site).as_posix()
            if name not in listed and not name.endswith(_UNLISTED):
                return f"{name}: it is not listed"
    except (OSError, ValueError, csv.Error) as problem:
        return str(problem)
    return None


def damaged_trees(folder: Path) -> list[str]:
    """Names of the compiled trees of a sound wheel that do not hold its files, or not the byte code that was made for it.

    Those made by a version that kept no sum are only checked for the wheel's files.
    """
    return [marker.stem for marker in folder.glob("compiled*.json") if not _tree_is_sound(folder / "site", folder / marker.stem, marker)]


def _tree_is_sound(site: Path, tree: Path, marker: Path) -> bool:
    try:
        expected = records.read(marker).get(PYC_SUM)
        return all((tree / file.relative_to(site)).samefile(file) for file in _files(site) if file.name not in APPENDED_TO) and expected in (None, pyc_sum(tree))
    except (OSError, ValueError):
        return False


def pyc_sum(tree: Path) -> str:
    """A hash of all byte code in ``tree``."""
    digest = hashlib.sha256()
    for file in sorted(tree.rglob("__pycache__/*.pyc")):
        with file.open("rb") as stream:
            digest.update(f"{file.relative_to(tree).as_posix()}\n{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def _place(name: str) -> str | None:
    """Where the file that a wheel's list calls ``name`` was unpacked; None for scripts and what belongs elsewhere in a prefix."""
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or name.startswith("/"):
        return None
    if parts[0].endswith(".data"):
        return "/".join(parts[2:]) if len(parts) > 2 and parts[1] in ("purelib", "platlib") else None
    return "/".join(parts)


def _trouble(file: Path, expected: str, size: str) -> str | None:
    algorithm, _, text = expected.partition("=")
    try:
        with file.open("rb") as stream:
            if file.name in APPENDED_TO and size.isdigit():
                found = hashlib.new(algorithm, stream.read(int(size))).digest()
            else:
                found = hashlib.file_digest(stream, algorithm).digest()
    except FileNotFoundError:
        return "it is missing"
    except OSError as problem:
        return str(problem)
    return None if _text(found) == text.rstrip("=") else "its content has changed"


def adopt(folder: Path) -> None:
    """Hold the wheel to what it holds today: where nobody kept its list, or the list that it came with is wrong."""
    site, record = folder / "site", folder / RECORD
    building = record.with_name(f"{record.name}.{os.getpid()}")
    with building.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        for file in _files(site):
            with file.open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").digest()
            rows.writerow([file.relative_to(site).as_posix(), f"sha256={_text(digest)}", file.stat().st_size])
    os.replace(building, record)


def _files(site: Path) -> Iterator[Path]:
    for directory, _, names in os.walk(site):
        for name in sorted(names):
            yield Path(directory, name)


def _text(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
