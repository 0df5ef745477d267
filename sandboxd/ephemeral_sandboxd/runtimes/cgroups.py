"""Reading, freezing and resizing a sandbox's control group, version 1 or 2.

Version 2 follows the kernel's documentation and was not yet tried on a machine that has it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from pathlib import Path

from ephemeral_sandboxd.runtimes.protocol import Size, Usage

ROOT = Path("/sys/fs/cgroup")
CONTROLLERS = ("memory", "cpu", "cpuacct", "pids", "freezer", "devices", "blkio", "cpuset", "systemd", "net_cls,net_prio", "perf_event", "hugetlb", "rdma")


class Cgroup:
    """One control group by its path, for example ``/ephemeral/s1``."""

    def __init__(self, path: str):
        self.path = path
        relative = path.lstrip("/")
        self._unified = (ROOT / "cgroup.controllers").exists()
        self._memory = ROOT / relative if self._unified else ROOT / "memory" / relative
        self._cpu = ROOT / relative if self._unified else ROOT / "cpu" / relative
        self._cpuacct = ROOT / "cpuacct" / relative
        self._freezer = ROOT / relative if self._unified else ROOT / "freezer" / relative
        self._pids = ROOT / relative if self._unified else ROOT / "pids" / relative
        self._remembered: dict[str, bool] = {}
        self._open: dict[Path, int] = {}
        """Files that every execution reads or writes, kept open: opening them costs ten times more than reading them."""
        self._cpu_file = self._cpu / "cpu.stat" if self._unified else self._cpuacct / "cpuacct.usage"
        self._peak_file = self._memory / ("memory.peak" if self._unified else "memory.max_usage_in_bytes")
        self._freeze_file = self._freezer / ("cgroup.freeze" if self._unified else "freezer.state")

    @classmethod
    def of(cls, pid: int, owner: str) -> Cgroup:
        """The group of process ``pid``, whose path must name ``owner``: kill() spares nobody who shares it.

        Raises OSError when there is no such process, or it is in a group of somebody else's.
        """
        unified = (ROOT / "cgroup.controllers").exists()
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            # Version 2 has one line, without controllers; version 1 one for each, and engines use the same path in all.
            if (not controllers if unified else "memory" in controllers.split(",")) and owner in path:
                return cls(path)
        raise OSError(errno.ENOENT, f"process {pid} has no control group of its own", f"/proc/{pid}/cgroup")

    def freeze(self) -> None:
        """Stop every process of the group where it stands. Raises OSError when the group is gone."""
        self._write_state("1" if self._unified else "FROZEN")

    def thaw(self) -> None:
        self._write_state("0" if self._unified else "THAWED")

    def usage(self) -> Usage:
        """Raises OSError when the group is gone."""
        if self._unified:
            inactive = _field(self._memory / "memory.stat", "inactive_file")
            used = _number(self._memory / "memory.current")
        else:
            inactive = _field(self._memory / "memory.stat", "total_inactive_file")
            used = _number(self._memory / "memory.usage_in_bytes")
        return Usage(memory_bytes=max(0, used - inactive), peak_bytes=self.peak_bytes() or used, cpu_ms=self.cpu_ms())

    def cpu_ms(self) -> float:
        """CPU time of all that ever ran in it. Raises OSError when the group is gone."""
        if self._unified:
            return _field_of(self._read(self._cpu_file), "usage_usec") / 1000
        return int(self._read(self._cpu_file)) / 1e6

    def peak_bytes(self) -> int | None:
        """Most memory since reset_peak(), page cache included; None where the kernel does not say."""
        try:
            return int(self._read(self._peak_file))
        except OSError:
            return None

    def reset_peak(self) -> None:
        with contextlib.suppress(OSError):
            os.pwrite(self._descriptor(self._peak_file), b"0", 0)

    def remember(self) -> None:
        """Keep what this group's death is about: an engine removes the group a moment later."""
        self._remembered = {"memory": self.out_of_memory(), "pids": self.out_of_pids()}

    def out_of_memory(self) -> bool:
        """Whether the kernel killed something of this group for its memory."""
        if self._remembered.get("memory"):
            return True
        with contextlib.suppress(OSError):
            if self._unified:
                return _field(self._memory / "memory.events", "oom_kill") > 0
            return _field(self._memory / "memory.oom_control", "oom_kill") > 0
        return False

    def out_of_pids(self) -> bool:
        """Whether something of this group could not start a process or thread."""
        if self._remembered.get("pids"):
            return True
        with contextlib.suppress(OSError):
            return _field(self._pids / "pids.events", "max") > 0
        return False

    def resize(self, size: Size) -> None:
        """Raise or lower the limits of the running group. Raises OSError when the kernel refuses."""
        if self._unified:
            # Version 1 refuses this; version 2 would kill.
            if size.memory_bytes < self.usage().memory_bytes:
                raise OSError(errno.EBUSY, "more memory is in use", str(self._memory))
            (self._memory / "memory.max").write_text(str(size.memory_bytes))
            (self._cpu / "cpu.max").write_text(f"{int(size.cpus * 100_000)} 100000")
            return
        files = [self._memory / "memory.limit_in_bytes", self._memory / "memory.memsw.limit_in_bytes"]
        current = _number(files[0])
        # memory+swap may never be below memory: raise it first, lower it last.
        for file in reversed(files) if size.memory_bytes > current else files:
            if file.exists():
                file.write_text(str(size.memory_bytes))
        (self._cpu / "cpu.cfs_quota_us").write_text(str(int(size.cpus * 100_000)))

    def limit(self, memory_bytes: int, cpus: float) -> None:
        """Make the group, if need be, and limit all that is below it together. Raises OSError."""
        if self._unified:
            self._memory.mkdir(exist_ok=True)
            # Controllers reach a group's children only where its parent says so.
            for directory in (ROOT, self._memory):
                (directory / "cgroup.subtree_control").write_text("+memory +cpu +pids")
            (self._memory / "memory.max").write_text(str(memory_bytes))
            (self._cpu / "cpu.max").write_text(f"{int(cpus * 100_000)} 100000")
            return
        for directory in (self._memory, self._cpu, self._freezer, self._pids):
            directory.mkdir(exist_ok=True)
        (self._memory / "memory.limit_in_bytes").write_text(str(memory_bytes))
        (self._cpu / "cpu.cfs_quota_us").write_text(str(int(cpus * 100_000)))

    def delegate(self, uid: int) -> None:
        """Make the group and hand it to a user, who can then run sandboxes in it without being root. Needs root. Raises OSError."""
        relative = self.path.lstrip("/")
        for directory in [ROOT / relative] if self._unified else [entry / relative for entry in ROOT.iterdir() if entry.is_dir() and not entry.is_symlink()]:
            directory.mkdir(exist_ok=True)
            for entry in (directory, *directory.iterdir()):
                os.chown(entry, uid, -1)

    def delegated(self) -> bool:
        """Whether this process may make groups below it."""
        return all(os.access(directory, os.W_OK) for directory in (self._memory, self._cpu, self._freezer, self._pids))

    def yield_cpu(self) -> None:
        """The least share of the processor that there is."""
        with contextlib.suppress(OSError):
            if self._unified:
                (self._cpu / "cpu.weight").write_text("1")
            else:
                (self._cpu / "cpu.shares").write_text("2")

    def processes(self) -> list[int]:
        with contextlib.suppress(OSError):
            return [int(line) for line in (self._memory / "cgroup.procs").read_text().split()]
        return []

    def kill(self) -> None:
        """SIGKILL to everything inside. A frozen process dies only when thawed."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        with contextlib.suppress(OSError):
            self.thaw()

    def remove(self) -> None:
        """Remove the group's directories, once its processes are gone."""
        relative = self.path.lstrip("/")
        for directory in [ROOT / relative] if self._unified else [ROOT / name / relative for name in CONTROLLERS]:
            with contextlib.suppress(OSError):
                directory.rmdir()

    def close(self) -> None:
        """Close what is kept open. The group itself stays."""
        while self._open:
            os.close(self._open.popitem()[1])

    def _write_state(self, state: str) -> None:
        os.pwrite(self._descriptor(self._freeze_file, os.O_WRONLY), state.encode(), 0)

    def _read(self, file: Path) -> bytes:
        return os.pread(self._descriptor(file), 4096, 0)

    def _descriptor(self, file: Path, flags: int = os.O_RDWR) -> int:
        descriptor = self._open.get(file)
        if descriptor is None:
            try:
                descriptor = os.open(file, flags | os.O_CLOEXEC)
            except PermissionError:
                descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)  # one that can only be read
            self._open[file] = descriptor
        return descriptor


def group_of(state: Path) -> str:
    """The parent group of all sandboxes of the daemon on this state directory, by which a reaper knows them."""
    return f"/ephemeral-{hashlib.sha256(str(state.resolve()).encode()).hexdigest()[:8]}"


def children(parent: str) -> list[str]:
    """Paths of the groups below ``parent``, for the reaper."""
    directory = ROOT / parent.lstrip("/") if (ROOT / "cgroup.controllers").exists() else ROOT / "memory" / parent.lstrip("/")
    if not directory.is_dir():
        return []
    return [f"{parent}/{entry.name}" for entry in directory.iterdir() if entry.is_dir()]


def _number(file: Path) -> int:
    return int(file.read_text())


def _field(file: Path, name: str) -> int:
    return _field_of(file.read_bytes(), name)


def _field_of(content: bytes, name: str) -> int:
    for line in content.decode().splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0
