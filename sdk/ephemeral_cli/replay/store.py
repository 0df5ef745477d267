"""A store for one policy, as ``ephemeral setup`` left it: what one policy downloads must not lie ready for the next."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ephemeral_cli.errors import CommandError

MADE = ("bin", "rootfs", "rootfs.json", "roots", "runsc.json", "snapshots")
"""What setup makes besides the base environments and their wheels."""


@contextmanager
def fresh(store: Path, state: Path) -> Iterator[Path]:
    """A store with all of ``store`` that setup made, by symbolic links, and nothing that was downloaded since. It is gone after the block.

    It lies in the directory ``state``, or beside ``store`` where that is another file system: sandboxd links files from one store into another place
    of it. Raises CommandError when ``store`` cannot be read.
    """
    here = state if state.stat().st_dev == store.stat().st_dev else store.parent
    target = Path(tempfile.mkdtemp(prefix="replay-store-", dir=here))
    try:
        _fill(target, store)
        yield target
    finally:
        shutil.rmtree(target, ignore_errors=True)  # the links go, not what they lead to


def _fill(target: Path, store: Path) -> None:
    wheels = target / "wheels"
    wheels.mkdir()
    bases = sorted(store.glob("base*.json"))
    for entry in [*(store / name for name in MADE), *bases]:
        if entry.exists():
            (target / entry.name).symlink_to(entry)
    try:
        needed = {wheel["sha256"] for base in bases for wheel in json.loads(base.read_text())["lock"]["wheels"]}
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise CommandError(f"a record of the base environment in {store} cannot be read: {problem!r}", "ephemeral setup") from None
    for sha256 in needed:
        (wheels / sha256).symlink_to(store / "wheels" / sha256)
