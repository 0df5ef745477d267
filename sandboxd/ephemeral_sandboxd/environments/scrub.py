"""The slow check: every file of every wheel against the hashes that came with it.

The quick check at first use (store.Counts) sees what is missing or cut short; this one also sees a byte that has changed.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import hmac
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ephemeral_sandboxd.environments.unpack import RECORD

APPENDED_TO = ("cacert.pem",)
"""Some hosts append their own authority to every CA bundle that they find: then the beginning has to be what the list says."""


@dataclass
class ScrubReport:
    """``damaged``: hash -> the first file that was not what it should be. ``healed``: those fetched again; the rest was discarded, or
    stays damaged while it cannot be had."""

    checked: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    healed: list[str] = field(default_factory=list)


def damage(folder: Path) -> str | None:
    """What is wrong with the wheel unpacked in ``folder``/site: one file's name and the trouble; None when all is as it should be.

    A wheel unpacked by a version that kept no list gets one now: from then on it is held to what it holds today. Blocking.
    """
    site, record = folder / "site", folder / RECORD
    if not record.exists():
        _write(record, site)
        return None
    try:
        rows = list(csv.reader(record.read_text(encoding="utf-8").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        return f"{RECORD}: {problem}"
    for row in rows:
        if len(row) >= 3 and row[1].startswith("sha256=") and _unpacked(row[0]) and (trouble := _trouble(site / row[0], row[1].removeprefix("sha256="), row[2])):
            return f"{row[0]}: {trouble}"
    return None


def _unpacked(name: str) -> bool:
    """Whether a file of that name was laid out as it is called: not scripts, and not what belongs elsewhere in a prefix."""
    parts = PurePosixPath(name).parts
    return bool(parts) and ".." not in parts and not name.startswith("/") and not parts[0].endswith(".data")


def _trouble(file: Path, expected: str, size: str) -> str | None:
    try:
        with file.open("rb") as stream:
            if file.name in APPENDED_TO and size.isdigit():
                found = hashlib.sha256(stream.read(int(size))).digest()
            else:
                found = hashlib.file_digest(stream, "sha256").digest()
    except FileNotFoundError:
        return "it is missing"
    except OSError as problem:
        return str(problem)
    return None if hmac.compare_digest(_text(found), expected.rstrip("=")) else "its content has changed"


def _write(record: Path, site: Path) -> None:
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
