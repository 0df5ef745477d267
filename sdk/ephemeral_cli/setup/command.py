"""``ephemeral setup``: everything in order, each step quick when it is already there."""

from __future__ import annotations

from pathlib import Path

from ephemeral import settings
from ephemeral_cli.errors import CommandError
from ephemeral_cli.progress import Reporter
from ephemeral_cli.rootfs import making, records
from ephemeral_cli.setup import base, runsc


def check(store: Path) -> list[str]:
    """What setup would still have to do for runsc and the root filesystem."""
    left = []
    if runsc.recorded(store) is None:
        left.append("runsc is not set up")
    if records.recorded(store) is None:
        left.append("the sandboxes' root filesystem is not made")
    return left


def run(report: Reporter, with_base: bool = True) -> None:
    """Set the machine up. Raises CommandError with what to type."""
    store = settings.get("store")
    try:
        store.mkdir(parents=True, exist_ok=True)
        found = runsc.ensure(store, report)
        report.say(f"runsc {found.version} ({found.origin})")
        root = making.ensure(store, report)
        report.say(f"root filesystem {root.id}: Python {root.python}, glibc {root.glibc} ({root.origin})")
    except PermissionError as problem:
        raise CommandError(f"{problem.filename} cannot be written", "sudo .venv/bin/ephemeral setup, or another EPHEMERAL_STATE") from None
    except OSError as problem:
        raise CommandError(f"setup failed at {problem.filename or store}: {problem.strerror}", "df -h, then `ephemeral setup` again") from None
    if with_base:
        base.ensure(store, report)
