"""Several unpacked wheels as one directory to import from, without copying a byte.

An overlay mount where the kernel can (milliseconds, whatever the size), else a directory of hard links. The result is read-only by
the mount; a directory of links is read-only only because whoever shows it to a sandbox mounts it so.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ephemeral_sandboxd import mounts

_CANNOT = (errno.EPERM, errno.ENOSYS, errno.EINVAL, errno.ENODEV, errno.EOPNOTSUPP)
"""What the kernel answers where overlays are not to be had; any other error is a real one."""


def compose(layers: Sequence[Path], target: Path, links: Path) -> Path:
    """The union of ``layers``, the first winning; returns the directory that holds it.

    That is ``target`` (made if need be), on which it is mounted, or, where nothing can be mounted, ``links``, filled with hard links
    (which must lie on the file system of the layers). Whatever was mounted at ``target`` before is replaced.
    """
    target.mkdir(parents=True, exist_ok=True)
    _clear(target)
    try:
        if len(layers) == 1:
            mounts.bind(layers[0], target)
        elif layers:
            mounts.overlay(layers, target)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        link(layers, links)
        return links
    return target


def _clear(target: Path) -> None:
    try:
        mounts.unmount(target)
    except PermissionError:  # who may not unmount could not have mounted either
        pass


def link(layers: Sequence[Path], target: Path) -> None:
    """Fills ``target`` with hard links to every file of ``layers``, the first winning. It appears whole or not at all; one that is
    there already is left as it is."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=".building-", dir=target.parent))
    try:
        for layer in layers:
            link_tree(layer, building)
        building.chmod(0o755)
        try:
            os.rename(building, target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # another process was faster
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)


def link_tree(source: Path, target: Path) -> None:
    """Hard links of the files below ``source`` at the same places below ``target``; files that are there stay."""
    target.mkdir(exist_ok=True)
    for entry in os.scandir(source):
        if entry.is_dir(follow_symlinks=False):
            link_tree(Path(entry.path), target / entry.name)
        elif entry.is_file(follow_symlinks=False):
            try:
                os.link(entry.path, target / entry.name)
            except FileExistsError:
                pass
