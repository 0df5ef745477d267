"""Mounts, spoken to the kernel directly: bind, overlay, detach, and a mount namespace of the process's own.

By the new mount API (Linux 5.12, for overlays of many layers 6.5), because it has no 4 KB limit on options and because a
read-only bind appears read-only from its first instant. Every failure is an OSError whose ``filename`` is the path it was about.
Needs CAP_SYS_ADMIN.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

# System calls since 5.2 have one number on every architecture that we know of; glibc has no wrappers before 2.36.
_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _MOUNT_SETATTR = 428, 429, 430, 431, 432, 442

_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_FSOPEN_CLOEXEC, _FSMOUNT_CLOEXEC = 1, 1
_FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 1, 6
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 0x1, 0x2, 0x4
_MS_REC, _MS_PRIVATE, _MS_SHARED = 0x4000, 1 << 18, 1 << 20
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000


class _MountAttr(ctypes.Structure):
    _fields_ = [("attr_set", ctypes.c_uint64), ("attr_clr", ctypes.c_uint64), ("propagation", ctypes.c_uint64), ("userns_fd", ctypes.c_uint64)]


def private_namespace() -> None:
    """Moves this process into a mount namespace of its own: what it mounts is seen by its children only and is gone with them,
    even after SIGKILL.

    Call it before the process starts a second thread: a thread that runs already would stay behind, so that is a RuntimeError.
    """
    if len(os.listdir("/proc/self/task")) > 1:
        raise RuntimeError("private_namespace() must be called before any thread is started")
    _check(_libc.unshare(_CLONE_NEWNS), "/proc/self/ns/mnt")
    _check(_libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None), "/")


def user_namespace() -> None:
    """Moves this process into a user namespace in which it is root, and into a mount namespace of that: what private_namespace() does, for
    who is not root. Only this one user exists in it. Raises OSError where the kernel forbids it. The same rule about threads."""
    if len(os.listdir("/proc/self/task")) > 1:
        raise RuntimeError("user_namespace() must be called before any thread is started")
    uid, gid = os.geteuid(), os.getegid()
    _check(_libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS), "/proc/self/ns/user")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    _check(_libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None), "/")


def make_shared(dst: Path) -> None:
    """Makes ``dst`` a mount of its own (if it is none yet) whose later submounts appear in every copy of it, as in a sandbox's gofer."""
    if not is_mount(dst):
        bind(dst, dst, readonly=False)
    # Out of the group that it shares with the file system it came from, or its submounts would appear all over the host.
    _check(_libc.mount(b"none", os.fsencode(dst), None, ctypes.c_ulong(_MS_PRIVATE), None), dst)
    _check(_libc.mount(b"none", os.fsencode(dst), None, ctypes.c_ulong(_MS_SHARED), None), dst)


def is_mount(path: Path) -> bool:
    """Whether something is mounted exactly there. Unlike os.path.ismount it also sees binds within one file system."""
    wanted = os.path.realpath(path)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        return any(_unescape(line.split(" ", 5)[4]) == wanted for line in lines)


def bind(src: Path, dst: Path, readonly: bool = True) -> None:
    """Shows the file or directory ``src`` (and what is mounted below it) at ``dst``, which must exist and be of the same kind."""
    tree = _syscall(_OPEN_TREE, src, ctypes.c_int(_AT_FDCWD), os.fsencode(src), ctypes.c_uint(_OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | _AT_RECURSIVE))
    try:
        attributes = _MountAttr(attr_set=_ATTR_NOSUID | _ATTR_NODEV | (_ATTR_RDONLY if readonly else 0))
        _syscall(_MOUNT_SETATTR, src, ctypes.c_int(tree), b"", ctypes.c_uint(_AT_EMPTY_PATH | _AT_RECURSIVE), ctypes.byref(attributes),
                 ctypes.c_size_t(ctypes.sizeof(attributes)))
        _attach(tree, dst)
    finally:
        os.close(tree)


def overlay(layers: Sequence[Path], dst: Path) -> None:
    """Shows the union of ``layers`` (two to 500 directories, the first wins) read-only at the directory ``dst``.

    The layers must not change while they are mounted. ENOSYS, EINVAL or ENODEV: this kernel cannot (older than 6.5, or no overlayfs).
    """
    context = _syscall(_FSOPEN, dst, b"overlay", ctypes.c_uint(_FSOPEN_CLOEXEC))
    try:
        for key, value in (("source", "ephemeral"), *(("lowerdir+", os.fspath(layer)) for layer in layers)):
            _configure(context, key, value, dst)
        _syscall(_FSCONFIG, dst, ctypes.c_int(context), ctypes.c_uint(_FSCONFIG_CMD_CREATE), None, None, ctypes.c_int(0))
        mount = _syscall(_FSMOUNT, dst, ctypes.c_int(context), ctypes.c_uint(_FSMOUNT_CLOEXEC), ctypes.c_uint(_ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV))
    finally:
        os.close(context)
    try:
        _attach(mount, dst)
    finally:
        os.close(mount)


def unmount(dst: Path) -> None:
    """Takes away what is mounted at ``dst``, lazily: who has a file of it open keeps that file. Nothing mounted there is not an error."""
    if _libc.umount2(os.fsencode(dst), ctypes.c_int(_MNT_DETACH | _UMOUNT_NOFOLLOW)) != 0:
        number = ctypes.get_errno()
        if number not in (errno.EINVAL, errno.ENOENT):
            raise OSError(number, os.strerror(number), os.fspath(dst))


def _attach(mount: int, dst: Path) -> None:
    _syscall(_MOVE_MOUNT, dst, ctypes.c_int(mount), b"", ctypes.c_int(_AT_FDCWD), os.fsencode(dst), ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH))


def _configure(context: int, key: str, value: str, dst: Path) -> None:
    path = value if key == "lowerdir+" else dst
    _syscall(_FSCONFIG, path, ctypes.c_int(context), ctypes.c_uint(_FSCONFIG_SET_STRING), key.encode(), os.fsencode(value), ctypes.c_int(0))


def _syscall(number: int, path: str | Path, *arguments: object) -> int:
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, "mounts need Linux", os.fspath(path))
    return _check(_libc.syscall(ctypes.c_long(number), *arguments), path)


def _check(result: int, path: str | Path) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fspath(path))
    return result


def _unescape(field: str) -> str:
    """mountinfo writes space, tab, newline and backslash as octal escapes."""
    for octal, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(octal, character)
    return field
