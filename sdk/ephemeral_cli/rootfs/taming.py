"""What any root filesystem goes through before something starts from it: a tree that gives nobody a privilege, on this machine or inside.

The tree may be somebody's whom we do not know. It lies on the host, and root handles it: nothing here follows a link of it,
and what later mounts onto it finds real directories.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
from pathlib import Path

from ephemeral_cli.errors import CommandError

MOUNT_POINTS = ("dev", "dev/shm", "ephemeral", "in", "out", "proc", "run", "scratch", "slots", "sys", "tmp")
"""Made empty, whatever was there."""
NEEDED = ("etc", "usr/bin")
"""Made where they are missing; a link in the place of one, or on the way to it, is refused."""
DOCUMENTATION = ("usr/share/doc", "usr/share/info", "usr/share/man", "usr/share/lintian", "usr/share/locale")
NOT_NEEDED = (*DOCUMENTATION, "boot", "home", "media", "opt", "srv", "var/cache", "var/lib/apt/lists", "var/log", "root")
"""Of a Debian that was made for sandboxes alone."""
EXPECTED = ("home", "root", "var/cache", "var/log")
"""Of those, what programs expect to be there, if empty."""
CAPABILITY = "security.capability"


def tame(root: Path, slim: bool = False) -> None:
    """Make ``root`` safe to lie on this machine and to start sandboxes from. ``slim`` is for a Debian that was made for
    sandboxes alone. Raises CommandError when it is no root filesystem.

    Everything belongs to root afterwards and only root may write: a user of this machine who happens to have the number of
    one in an image must not be able to change what sandboxes run.
    """
    for path in NEEDED:
        _real(root, path)
    if slim:
        for path in NOT_NEEDED:
            shutil.rmtree(root / path, ignore_errors=True)
        for path in EXPECTED:
            (root / path).mkdir()
    for path in MOUNT_POINTS:
        _remove(root / path)
        (root / path).mkdir()
    _remove(root / "etc/resolv.conf")  # the name servers of the machine that built it
    for folder, directories, files in os.walk(root):
        for name in (*directories, *files):
            _tame_one(os.path.join(folder, name))
    root.chmod(0o755)
    os.chown(root, 0, 0)


def link_python(root: Path, python: str) -> None:
    """Let /usr/bin/python3, as which the guest is started, be ``python`` (a path inside)."""
    if python == "/usr/bin/python3":
        return
    _real(root, "usr/bin")
    _remove(root / "usr/bin/python3")
    (root / "usr/bin/python3").symlink_to(python)


def link_packages(root: Path, environment: str, site: str) -> None:
    """Let the Python whose packages lie in ``site`` see those in ``environment``, too (paths inside).

    Started by another name, a virtual environment's Python does not know that it belongs to it.
    """
    _real(root, site.strip("/"))
    file = root / site.strip("/") / "ephemeral-environment.pth"
    _remove(file)
    file.write_text(environment + "\n")


def size(root: Path) -> int:
    """Bytes that its files hold; what has several names counts once."""
    sizes: dict[int, int] = {}
    for folder, _, names in os.walk(root):
        for name in names:
            state = os.lstat(os.path.join(folder, name))
            sizes[state.st_ino] = state.st_size
    return sum(sizes.values())


def digest(root: Path) -> str:
    """A hash of the whole tree: names, modes, links and contents, in order."""
    total = hashlib.sha256()
    for folder, directories, files in os.walk(root):
        directories.sort()
        for name in sorted((*directories, *files)):
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            content = b""
            if stat.S_ISREG(mode):
                with open(path, "rb") as file:
                    content = hashlib.file_digest(file, "sha256").digest()
            elif stat.S_ISLNK(mode):
                content = os.fsencode(os.readlink(path))
            total.update(os.fsencode(os.path.relpath(path, root)) + b"\0" + f"{mode:o} {len(content)} ".encode() + content)
    return total.hexdigest()


def _real(root: Path, path: str) -> None:
    """``path`` is a directory, and so is all that leads to it; made where missing."""
    place = root
    for part in path.split("/"):
        place /= part
        try:
            mode = os.lstat(place).st_mode
        except FileNotFoundError:
            place.mkdir(mode=0o755)
            continue
        if not stat.S_ISDIR(mode):
            raise CommandError(f"/{place.relative_to(root)} is not a directory there: that is no root filesystem sandboxes can start from",
                               "give the whole root filesystem of a Linux, for example of a Debian image")


def _remove(path: Path) -> None:
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path)
        else:
            path.unlink()
    except FileNotFoundError:
        pass


def _tame_one(path: str) -> None:
    state = os.lstat(path)
    if (state.st_uid, state.st_gid) != (0, 0):
        os.lchown(path, 0, 0)
    if stat.S_ISLNK(state.st_mode):
        return
    if not stat.S_ISREG(state.st_mode) and not stat.S_ISDIR(state.st_mode):
        os.unlink(path)  # a device, a pipe, a socket
        return
    mode = stat.S_IMODE(state.st_mode)
    if mode & ~0o755:
        os.chmod(path, mode & 0o755)
    try:
        os.removexattr(path, CAPABILITY, follow_symlinks=False)
    except OSError as problem:
        if problem.errno not in (errno.ENODATA, errno.ENOTSUP):
            raise


def discard(folder: Path) -> None:
    """Remove a tree of ours, whatever its modes and names are."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
