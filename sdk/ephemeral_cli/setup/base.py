"""The base environment and the first snapshots: sandboxd makes them, in a process of its own; here is their progress."""

from __future__ import annotations

import hashlib
import importlib.util
import platform
import subprocess
import sys
from pathlib import Path

from ephemeral import settings
from ephemeral_cli import messages
from ephemeral_cli.errors import CommandError
from ephemeral_cli.progress import Reporter

MADE = ("runsc.json", "rootfs.json", "base.json")
DECIDING = ("base", "constraints", "index_url", "find_links", "allow", "deny", "private_index", "private_names", "minimum_age_days")
"""Settings that change which wheels the base environment holds."""


def ensure(store: Path, report: Reporter) -> None:
    """Have sandboxd make what is missing of the base environment; at once when nothing that it depends on has changed.

    Raises CommandError with its last words.
    """
    stamp = store / "base.stamp"
    if _read(stamp) == _fingerprint(store):
        return
    _make(report)
    stamp.write_text(_fingerprint(store))  # after, for the base environment is part of it


def _fingerprint(store: Path) -> str:
    """A hash of all that decides what would be made: sandboxd itself, its settings, this kernel, and what is there now."""
    digest = hashlib.sha256()
    spec = importlib.util.find_spec("ephemeral_sandboxd")
    package = Path(next(iter(spec.submodule_search_locations or []))) if spec else Path()
    configured = settings.get("base")
    sources = sorted(path for path in package.rglob("*") if path.suffix in (".py", ".txt"))
    for path in [*sources, *(store / name for name in MADE), *([configured] if configured else [])]:
        digest.update(f"{path.name}\n{_read(path)}\n".encode())
    for name in DECIDING:
        digest.update(f"{name}={settings.get(name)}\n".encode())
    snapshots = sorted(entry.name for entry in (store / "snapshots").iterdir()) if (store / "snapshots").is_dir() else []
    digest.update(f"{platform.release()} {platform.machine()} {bool(snapshots)}".encode())
    return digest.hexdigest()


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _make(report: Reporter) -> None:
    command = [sys.executable, "-m", "ephemeral_sandboxd.setup"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as child:
        with report.step("base environment") as step:
            status, _, words = messages.listen(child, step)
            if status:
                raise CommandError(f"the base environment could not be made ({status}): {words}", "ephemeral doctor, then `ephemeral setup` again: what is done is kept")
