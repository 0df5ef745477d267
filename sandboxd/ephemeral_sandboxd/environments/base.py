"""The base environment: the packages that nearly all programs use, locked together, in every sandbox from its first instant."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from ephemeral import settings
from ephemeral_sandboxd.environments import policy, records
from ephemeral_sandboxd.environments.records import Damaged
from ephemeral_sandboxd.environments.resolve import Lock
from ephemeral_sandboxd.environments.target import Target

SHIPPED = Path(__file__).parent.parent / "data" / "base.txt"
_FIRST = ("3.11", (2, 36))
"""The root filesystem that there was before there were several: its base has the short name."""


@dataclass(frozen=True)
class Base:
    """The current base. ``packages`` is name -> version; ``list_hash`` tells which list of requirements it was made from; ``path`` is
    where it is mounted, None until then."""

    lock: Lock
    list_hash: str
    created_at: float
    path: Path | None = None

    @property
    def id(self) -> str:
        return self.lock.id

    @property
    def packages(self) -> dict[str, str]:
        return self.lock.packages


def requirements_file() -> Path:
    """The list in force: EPHEMERAL_BASE, else the one that ships with sandboxd."""
    return settings.get("base") or SHIPPED


def read_requirements(file: Path) -> list[str]:
    """The lines of ``file`` without comments. Raises OSError."""
    lines = (line.partition("#")[0].strip() for line in file.read_text().splitlines())
    return [line for line in lines if line]


def parse_requirements(file: Path) -> list[str]:
    """The packages of ``file`` in normal form, ``name`` or ``name==version``. The operator wrote them: no name is too rare.

    Raises PackageRefused for a line that is neither, OSError when the file cannot be read.
    """
    return [str(policy.parse(line)) for line in read_requirements(file)]


def list_hash(requirements: list[str], python: str) -> str:
    return hashlib.sha256(json.dumps([python, sorted(requirements)]).encode()).hexdigest()[:16]


def record(store: Path, target: Target) -> Path:
    """Which file names the current base for ``target``: wheels fit one Python, and no older glibc than they were chosen for."""
    if (target.python, target.glibc) == _FIRST:
        return store / "base.json"
    return store / f"base-{target.python}-glibc{target.glibc[0]}.{target.glibc[1]}.json"


def all_records(store: Path) -> list[Path]:
    """Those for any Python."""
    return sorted(store.glob("base*.json"))


def load(file: Path) -> Base | None:
    """The base that ``file`` names; None when there is none. Raises Damaged when it cannot be read."""
    try:
        data = records.read(file)
        return Base(Lock.from_json(data["lock"]), str(data["list_hash"]), float(data["created_at"]))
    except FileNotFoundError:
        return None
    except (OSError, KeyError, TypeError, ValueError) as problem:
        raise Damaged(str(problem)) from None


def save(base: Base, file: Path) -> None:
    """Makes it the current one, whole or not at all. Raises OSError."""
    records.write(file, {"id": base.id, "list_hash": base.list_hash, "created_at": base.created_at, "lock": base.lock.to_json()})
