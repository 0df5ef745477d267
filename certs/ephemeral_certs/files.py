"""Files that hold secrets: readable by their owner only, and never to be seen half written."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ephemeral_certs.errors import CertsError

Stamp = tuple[int, int, int]


def private_directory(path: Path) -> None:
    """Make ``path`` (and what is above it), mode 0700. Raises CertsError where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.chmod(0o700)
    except OSError as problem:
        raise _unusable(path, problem) from None


def write(path: Path, content: bytes | str) -> None:
    """Replace ``path`` in one step (0600), on disk before this returns. Raises CertsError."""
    data = content.encode() if isinstance(content, str) else content
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
        _sync_directory(path.parent)
    except OSError as problem:
        raise _unusable(path, problem) from None


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file ``path``: of two commands that read, change and write, one waits. Raises CertsError."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as problem:
        raise _unusable(path, problem) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def stamp(path: Path) -> Stamp | None:
    """Differs after every write(); None where there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unusable(path: Path, problem: OSError) -> CertsError:
    return CertsError(f"{path} cannot be written: {problem.strerror}.", hint="Run it as root, or set EPHEMERAL_STATE to a directory of yours.")
