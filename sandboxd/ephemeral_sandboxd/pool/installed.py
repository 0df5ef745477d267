"""What the rivals install, from its making until nothing of it is left.

An install is thousands of files, and deleting them costs the next one: a file system without a journal (ext4) passes over the inodes of files that
were deleted in the last minutes, one by one, which makes new files up to 40 times slower. So the bytes of what has served are given back at once, the
names at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ephemeral_sandboxd.environments import locks

log = logging.getLogger(__name__)

MINE = "run-"
CLOSING_SECONDS = 5.0
"""For deleting when the daemon stops; whoever waits for its end loses patience after 20 s."""
LOWEST = 19
"""Priority of the thread that deletes: what is measured must not wait for it."""


class Installed:
    """A folder of this daemon's own in ``root``, which others may share: locked while this process lives, so that the next daemon
    can tell what one that was killed has left, and deletes that."""

    def __init__(self, root: Path):
        self._root = root
        self._mine: Path | None = None
        self._lock: int | None = None
        self._until = float("inf")
        self._worker = ThreadPoolExecutor(1, "installed", initializer=_step_back)
        self._worker.submit(self._sweep)

    def folder(self) -> Path:
        """Where to install; exists. Raises OSError."""
        if not self._mine:
            self._root.mkdir(parents=True, exist_ok=True)
            with locks.alone(self._root, directory=True):  # nobody sweeps between the two
                mine = Path(tempfile.mkdtemp(prefix=MINE, dir=self._root))
                self._lock = locks.take(mine, alone=True, directory=True)
            self._mine = mine
        return self._mine

    async def empty(self, folder: Path) -> None:
        """Give back what the files of ``folder`` take on the disk; their names stay."""
        await asyncio.get_running_loop().run_in_executor(self._worker, self._empty, folder)

    async def close(self) -> None:
        """Delete this daemon's folder, within CLOSING_SECONDS; what is left then goes when the next daemon starts."""
        self._until = time.monotonic() + (CLOSING_SECONDS if self._mine else 0)
        if self._mine:
            await asyncio.get_running_loop().run_in_executor(self._worker, self._remove, self._mine)
        locks.give_back([self._lock])
        self._worker.shutdown()

    # ------------------------------------------------------------------------------------------------- in the thread

    def _sweep(self) -> None:
        try:
            with locks.alone(self._root, directory=True):
                found = [folder for folder in self._root.iterdir() if folder.name.startswith(MINE)]
                left = [(folder, lock) for folder in found if (lock := locks.take(folder, alone=True, wait=False, directory=True)) is not None]
        except FileNotFoundError:
            return
        except OSError as problem:
            log.warning("what earlier daemons left in %s stays there: %s", self._root, problem)
            return
        for folder, lock in left:
            self._remove(folder)
            locks.give_back([lock])

    def _empty(self, folder: Path) -> None:
        for path in self._below(folder):
            with contextlib.suppress(OSError):
                # Never through a symbolic link: the cache has some, and who knows where they lead.
                if stat.S_ISREG(os.lstat(path).st_mode):
                    os.truncate(path, 0)

    def _remove(self, folder: Path) -> None:
        for path in self._below(folder):
            try:
                os.unlink(path)
            except OSError:
                with contextlib.suppress(OSError):
                    os.rmdir(path)
        with contextlib.suppress(OSError):  # not empty: there was no time
            folder.rmdir()

    def _below(self, folder: Path) -> Iterator[str]:
        """Everything in ``folder``, what lies deepest first, for as long as there is time."""
        for directory, folders, files in os.walk(folder, topdown=False):
            for name in (*files, *folders):
                if time.monotonic() > self._until:
                    return
                yield os.path.join(directory, name)


def _step_back() -> None:
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST)
