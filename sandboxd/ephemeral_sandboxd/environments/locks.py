"""Locks between processes that share a store. The kernel keeps them, so that they end with their holder however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


def take(path: Path, *, alone: bool = False, wait: bool = True, directory: bool = False) -> int | None:
    """Lock the file ``path`` (made if need be), or the ``directory`` that it is, beside others or ``alone``; closing the returned descriptor
    gives it back.

    None when it cannot be had without waiting and ``wait`` is false. Raises OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (os.O_DIRECTORY if directory else os.O_CREAT), 0o600)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def alone(path: Path, *, wait: bool = True, directory: bool = False) -> Iterator[bool]:
    """Whether nobody else holds ``path``, which then stays so inside the block; always true with ``wait``. Raises OSError."""
    descriptor = take(path, alone=True, wait=wait, directory=directory)
    try:
        yield descriptor is not None
    finally:
        give_back([descriptor])


@contextmanager
def directories(paths: Iterable[Path]) -> Iterator[None]:
    """Holds all directories of ``paths`` that exist, beside others. Raises OSError."""
    held: list[int | None] = []
    try:
        for path in paths:
            try:
                held.append(take(path, directory=True))
            except FileNotFoundError:
                continue
        yield
    finally:
        give_back(held)


def give_back(descriptors: Iterable[int | None]) -> None:
    for descriptor in descriptors:
        if descriptor is not None:
            os.close(descriptor)
