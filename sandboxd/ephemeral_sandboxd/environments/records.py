"""Small JSON files that the store keeps: written whole or not at all, and read back only as they were written."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

_SUM = "sum"


class Damaged(ValueError):
    """The file is there, and is not what was written. The message says in a few words what is wrong with it."""


def write(file: Path, content: dict[str, Any]) -> None:
    """Replaces ``file`` in one step. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    building = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        building.write_text(json.dumps({**content, _SUM: _sum(content)}))
        os.replace(building, file)
    except OSError:
        building.unlink(missing_ok=True)
        raise


def read(file: Path) -> dict[str, Any]:
    """What was written. Raises OSError (FileNotFoundError: nothing was), or Damaged. A file without a sum is one of an older version."""
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as problem:
        raise Damaged(f"it is not JSON ({problem})") from None
    if not isinstance(content, dict):
        raise Damaged("it is not a JSON object")
    expected = content.pop(_SUM, None)
    if expected is not None and expected != _sum(content):
        raise Damaged("its content has changed")
    return content


def _sum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
