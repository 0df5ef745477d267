"""Small programs of ours that make a freshly imported package do its usual first thing once.

``import torch`` does not import what the first optimizer step does (805 modules, 5-9 s under gVisor); the first figure
loads fonts. A rehearsal runs after its module's import, in the sandbox, before the code exists.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "data" / "rehearsals"


@cache
def rehearsal(module: str) -> str:
    """The program for ``module``; empty where there is none."""
    file = FOLDER / f"{module}.py"
    return file.read_text() if file.is_file() else ""
