"""The base environment: the packages that nearly all programs use, locked together, in every sandbox from its first instant."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from ephemeral import settings
from ephemeral_sandboxd.environments import policy
from ephemeral_sandboxd.environments.resolve import Lock

SHIPPED = Path(__file__).parent.parent / "data" / "base.txt"


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


def load(file: Path) -> Base | None:
    """The base that ``file`` (STORE/base.json) names; None when there is none or it cannot be read."""
    try:
        data = json.loads(file.read_bytes())
        return Base(Lock.from_json(data["lock"]), str(data["list_hash"]), float(data["created_at"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save(base: Base, file: Path) -> None:
    """Makes it the current one, whole or not at all."""
    building = file.with_name(f"{file.name}.{os.getpid()}")
    building.write_text(json.dumps({"id": base.id, "list_hash": base.list_hash, "created_at": base.created_at, "lock": base.lock.to_json()}))
    os.replace(building, file)
