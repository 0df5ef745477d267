"""The ``gvisor`` runtime: runsc driven directly, with snapshots."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any, Literal

from ephemeral_sandboxd.commands import run
from ephemeral_sandboxd.errors import Unavailable
from ephemeral_sandboxd.runtimes import cgroups, guest, spec
from ephemeral_sandboxd.runtimes.box import Box, Gone, clear, prepare_directory, whole
from ephemeral_sandboxd.runtimes.cgroups import Cgroup
from ephemeral_sandboxd.runtimes.frames import Channel
from ephemeral_sandboxd.runtimes.protocol import Size

log = logging.getLogger(__name__)

BOOT_TIMEOUT_SECONDS = 60.0
FLAGS = (
    "--network=none",
    "--platform=systrap",
    "--overlay2=none",  # the root is read-only: no writable layer over it
    "--host-uds=none",
    "--host-fifo=none",
)


class GVisor:
    """Starts sandboxes below ``run`` (short-lived files) from the root filesystem ``rootfs``.

    ``group`` is the parent control group of every sandbox of this state directory, which is how the reaper knows them.
    """

    name: Literal["gvisor", "docker"] = "gvisor"
    isolation = "gVisor (runsc, systrap)"
    can_snapshot = True

    def __init__(self, runsc: Path, rootfs: Path, run: Path, group: str):
        self._runsc = runsc
        self._rootfs = rootfs
        self._run = run
        self._group = group
        self._root = run / "runsc"
        self._guest = run / "guest"
        # More starts at once than cores only slow each other (gvisor#9119).
        self._starts = asyncio.Semaphore(os.cpu_count() or 1)
        self._build = ""

    async def check(self) -> None:
        for path, what in ((self._runsc, "runsc"), (self._rootfs, "the sandboxes' root filesystem")):
            if not path.exists():
                raise Unavailable("no sandbox runtime", f"{what} is not at {path}", "ephemeral setup")
        status, out = await run(str(self._runsc), "--version")
        if status:
            raise Unavailable("no sandbox runtime", f"{self._runsc} --version failed: {out[-300:]}", "ephemeral setup")
        digest = await asyncio.to_thread(_sha256, self._runsc)
        self._build = f"{out.splitlines()[0]} {digest[:16]}"
        for directory in (self._root, self._guest, self._run / "sandboxes"):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._guest.chmod(0o755)
        shutil.copyfile(guest.__file__, self._guest / "guest.py")
        spec.prepare_rootfs(self._rootfs)

    async def close(self) -> None:
        """Remove the parent control group, once every sandbox is deleted."""
        Cgroup(self._group).remove()

    def fingerprint(self) -> str:
        flags = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(("flags", "Features"))), "")
        size = Size(memory_bytes=0, cpus=1, pids=0, disk_bytes=0)
        # The root directory's own mtime changes with its mount points: its name (a content hash) identifies it.
        shape = json.dumps(spec.oci(Path(self._rootfs.name), Path("s"), Path("g"), "c", size))
        parts = (self._build, *FLAGS, flags, os.uname().release, shape, Path(guest.__file__).read_text())
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    async def start(self, name: str, size: Size, image: Path | None = None, slots: dict[int, Path] | None = None) -> Box:
        async with self._starts:
            return await whole(self._start(name, size, image, slots or {}))

    async def _start(self, name: str, size: Size, image: Path | None, slots: dict[int, Path]) -> Box:
        directory = self._run / "sandboxes" / name
        try:
            slots_directory = prepare_directory(directory)
            (directory / "config.json").write_text(json.dumps(self.spec(slots_directory, name, size)))
            stderr = os.open(directory / "stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as problem:
            clear(directory)
            raise Unavailable("sandbox did not start", f"{name}: {problem}", "ephemeral doctor") from problem
        guest_in, our_out = os.pipe()
        our_in, guest_out = os.pipe()
        channel = await Channel.open(our_in, our_out)
        box = Box(name, directory, channel, Cgroup(f"{self._group}/{name}"), size, _Runsc(self, name))
        try:
            try:
                for slot, source in slots.items():
                    box.mount(slot, source)
                verb = ["restore", "--detach", f"--image-path={image}"] if image else ["run", "--detach"]
                process = await asyncio.create_subprocess_exec(
                    *self.command(*verb, f"--bundle={directory}", name),
                    stdin=guest_in, stdout=guest_out, stderr=stderr, start_new_session=True)
            finally:
                for descriptor in (guest_in, guest_out, stderr):
                    os.close(descriptor)
            if await process.wait():
                raise Gone("crashed", "runsc did not start it")
            if image:
                await box.renew()
            else:
                await box.hello(BOOT_TIMEOUT_SECONDS)
        except (Gone, OSError) as problem:
            words = (directory / "stderr").read_text(errors="replace")[-400:].strip()
            await box.delete()
            raise Unavailable("sandbox did not start", f"{name} ({'restore' if image else 'boot'}): {problem}. {words}",
                              "ephemeral doctor") from problem
        except BaseException:
            await box.delete()
            raise
        return box

    def spec(self, slots: Path, name: str, size: Size) -> dict[str, Any]:
        """The hardened spec of sandbox ``name``."""
        return spec.oci(self._rootfs, slots, self._guest, f"{self._group}/{name}", size)

    async def remove(self, name: str) -> None:
        """Kill and delete what runsc and the kernel know of ``name``. Never raises."""
        cgroup = Cgroup(f"{self._group}/{name}")
        await _bury(cgroup)
        status, out = await run(*self.command("delete", "--force", name))
        if status and "does not exist" not in out:
            log.warning("runsc delete of %s: %s", name, out[-300:])
        cgroup.remove()

    def command(self, *arguments: str) -> list[str]:
        return [str(self._runsc), f"--root={self._root}", *FLAGS, *arguments]

    async def reap(self) -> int:
        """Kill and remove every sandbox of our group: nobody else uses this state directory (the daemon holds its lock)."""
        left = self._run / "sandboxes"
        names = {Path(path).name for path in cgroups.children(self._group)} | {entry.name for entry in left.iterdir()}
        for name in names:
            await self.remove(name)
            clear(left / name)
        return len(names)


class _Runsc:
    """Driver of one sandbox by runsc's command line."""

    def __init__(self, runtime: GVisor, name: str):
        self._runtime = runtime
        self._name = name

    async def interrupt(self) -> None:
        await run(*self._runtime.command("kill", self._name, str(int(signal.SIGINT))))

    async def out_of_memory(self) -> bool:
        return False  # its control group outlives it: that was asked first

    async def checkpoint(self, image: Path) -> None:
        # Uncompressed: 0.3 s to restore instead of 1.7.
        status, out = await run(*self._runtime.command(
            "checkpoint", f"--image-path={image}", "--compression=none", "--exclude-committed-zero-pages", self._name))
        if status:
            raise Unavailable("snapshot failed", f"runsc checkpoint of {self._name}: {out[-300:]}", "ephemeral doctor")

    async def delete(self) -> None:
        await self._runtime.remove(self._name)


async def _bury(cgroup: Cgroup) -> None:
    """Kill until nothing of the group lives, and collect the dead."""
    deadline = time.monotonic() + 10
    cgroup.kill()
    sweep()
    while cgroup.processes() and time.monotonic() < deadline:
        await asyncio.sleep(0.005)
        cgroup.kill()
        sweep()
    # The very last stubs are re-parented to us a moment after they left the group.
    await asyncio.sleep(0.005)
    sweep()


def sweep() -> int:
    """Collect dead sentries, gofers and stubs: re-parented to us, because the daemon is a subreaper. runsc would wait for ever for
    one that is only a zombie. Only those: their name is that of a re-executed /proc/self/exe, and the event loop collects the commands
    that it started itself. Returns how many."""
    swept = 0
    for thread in os.listdir("/proc/self/task"):
        for pid in Path(f"/proc/self/task/{thread}/children").read_text().split():
            try:
                name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
                if name == "exe" and rest.split()[0] == "Z" and os.waitpid(int(pid), os.WNOHANG)[0]:
                    swept += 1
            except (OSError, IndexError):
                continue
    return swept


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
