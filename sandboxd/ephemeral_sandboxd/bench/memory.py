"""Memory by proportional set size (PSS): what is shared is counted once, divided among those who share it. A frozen process keeps its own.

An address space is counted once, too: gVisor's stubs are several processes on one, and each shows all of it as its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from collections.abc import Iterable
from pathlib import Path

PROC = Path("/proc")

_libc = ctypes.CDLL(None)
_KCMP = {"x86_64": 312, "aarch64": 272}
_KCMP_VM = 1


def sandbox_pss_mb(name: str) -> float:
    """Of all processes of the sandbox called ``name``: sentry, gofer, stubs. They are known by their control group."""
    return _pss_mb(pid for pid in map(int, filter(str.isdigit, os.listdir(PROC))) if _in_group(pid, name))


def tree_pss_mb() -> float:
    """Of this process and all that descends from it: sentries are re-parented to it, as it is a subreaper."""
    found, todo = [], [os.getpid()]
    while todo:
        found.append(todo.pop())
        for file in PROC.glob(f"{found[-1]}/task/*/children"):
            with contextlib.suppress(OSError):
                todo += [int(child) for child in file.read_text().split()]
    return _pss_mb(found)


def _pss_mb(pids: Iterable[int]) -> float:
    counted: list[int] = []
    total_kb = 0
    for pid in pids:
        with contextlib.suppress(OSError):  # it has just ended
            if not any(_same_space(pid, other) for other in counted):
                total_kb += _pss_kb(pid)
                counted.append(pid)
    return total_kb / 1024


def _same_space(pid: int, other: int) -> bool:
    """Whether two processes run on one address space; False where the kernel does not say."""
    number = _KCMP.get(platform.machine())
    return number is not None and _libc.syscall(ctypes.c_long(number), pid, other, _KCMP_VM, 0, 0) == 0


def _pss_kb(pid: int) -> int:
    lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def _in_group(pid: int, name: str) -> bool:
    with contextlib.suppress(OSError):
        return any(line.endswith(f"/{name}") for line in (PROC / str(pid) / "cgroup").read_text().splitlines())
    return False
