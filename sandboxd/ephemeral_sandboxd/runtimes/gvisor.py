"""The ``gvisor`` runtime: runsc driven directly, with snapshots."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import secrets
import shutil
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

from ephemeral.tasks import Tasks
from ephemeral_sandboxd.commands import run
from ephemeral_sandboxd.errors import Unavailable
from ephemeral_sandboxd.runtimes import cgroups, control, spec
from ephemeral_sandboxd.runtimes.box import INTERRUPT_DELIVERY_SECONDS, Box, Gone, clear, prepare_directory, whole
from ephemeral_sandboxd.runtimes.cgroups import Cgroup
from ephemeral_sandboxd.runtimes.frames import Channel
from ephemeral_sandboxd.runtimes.protocol import Size

log = logging.getLogger(__name__)

BOOT_TIMEOUT_SECONDS = 60.0
MEMORY_BACKSTOP = 1.25
"""The kernel's limit for all sandboxes, over the pool's budget: the pool reacts within a second, and until then nothing should die."""
SOCKET_FAILURES_ALLOWED = 3
"""Restores by the control socket that failed, one after the other, where the command line then did it, before the socket is given up."""
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

    def __init__(self, runsc: Path, rootfs: Path, run: Path, group: str, blanks: int = 0):
        """``blanks``: sandboxes that are kept created for restores, once the first one has been asked for."""
        self._runsc = runsc
        self._rootfs = rootfs
        self._run = run
        self._group = group
        self._root = run / "runsc"
        self._guest = run / "guest"
        # More starts at once than cores only slow each other (gvisor#9119).
        self._starts = asyncio.Semaphore(os.cpu_count() or 1)
        self._build = ""
        self._tasks = Tasks()
        self._blanks: deque[Box] = deque()
        self._blanks_wanted = blanks
        self._filling = asyncio.Lock()
        self._by_socket = True
        self._socket_failures = 0
        self._closing = False

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
        spec.write_guest(self._guest)
        spec.prepare_rootfs(self._rootfs)

    def limit(self, memory_bytes: int, cpus: float) -> None:
        try:
            Cgroup(self._group).limit(int(memory_bytes * MEMORY_BACKSTOP), cpus)
        except OSError as problem:
            log.warning("sandboxes have no common limit: %s", problem)

    async def close(self) -> None:
        """Delete the blanks; remove the parent control group, once every sandbox is deleted."""
        self._closing = True
        await self._tasks.settle()
        while self._blanks:
            await self._blanks.popleft().delete()
        Cgroup(self._group).remove()

    def fingerprint(self, root: Path | None = None) -> str:
        flags = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(("flags", "Features"))), "")
        size = Size(memory_bytes=0, cpus=1, pids=0, disk_bytes=0)
        # The root directory's own mtime changes with its mount points: its name (a content hash) identifies it.
        shape = json.dumps(spec.oci(Path((root or self._rootfs).name), Path("s"), Path("g"), "c", size))
        parts = (self._build, *FLAGS, flags, os.uname().release, shape)
        digest = hashlib.sha256("\n".join(parts).encode())
        for name, content in sorted(spec.guest_files().items()):
            digest.update(name.encode() + content)
        return digest.hexdigest()

    async def start(self, name: str, size: Size, image: Path | None = None, slots: dict[int, Path] | None = None,
                    root: Path | None = None) -> Box:
        async with self._starts:
            if image is None:
                return await whole(self._boot(name, size, slots or {}, root or self._rootfs))
            return await whole(self._restore(name, size, image, slots or {}, root or self._rootfs))

    async def _boot(self, name: str, size: Size, slots: dict[int, Path], root: Path) -> Box:
        async def answer(box: Box, driver: _Runsc | None) -> None:
            await self._runsc_of(box, driver, root, "run", "--detach")
            await box.hello(BOOT_TIMEOUT_SECONDS)

        return await self._begin(name, size, slots, answer)

    async def _restore(self, name: str, size: Size, image: Path, slots: dict[int, Path], root: Path) -> Box:
        """Into a blank, by the control socket; by the command line where that does not work."""
        if self._by_socket:
            try:
                box = await self._restore_by_socket(name, size, image, slots, root)
                self._socket_failures = 0
                return box
            except Unavailable as problem:
                refused = problem
        box = await self._restore_by_command(name, size, image, slots, root)
        if self._by_socket:
            # The image is sound, then: it is the socket that this runsc does not offer, or not in our dialect.
            self._socket_failures += 1
            log.warning("restored by the command line, %d of %d tries before it is always so: %s", self._socket_failures, SOCKET_FAILURES_ALLOWED, refused)
            self._by_socket = self._socket_failures < SOCKET_FAILURES_ALLOWED
            while self._blanks and not self._by_socket:
                self._tasks.start(self._blanks.popleft().delete(), "delete a blank")
        return box

    async def _restore_by_socket(self, name: str, size: Size, image: Path, slots: dict[int, Path], root: Path) -> Box:
        async def answer(box: Box, driver: _Runsc | None) -> None:
            if driver:
                await self._runsc_of(box, driver, root, "create")
            else:
                box.thaw()
                if box.size != size:
                    box.resize(size)
            for slot, source in slots.items():
                box.mount(slot, source)
            await asyncio.to_thread(control.restore, self.control(box.name), image, BOOT_TIMEOUT_SECONDS)
            await box.renew()

        return await self._begin(name, size, {}, answer, self._blank(size, root))

    async def _restore_by_command(self, name: str, size: Size, image: Path, slots: dict[int, Path], root: Path) -> Box:
        async def answer(box: Box, driver: _Runsc | None) -> None:
            await self._runsc_of(box, driver, root, "restore", "--detach", f"--image-path={image}")
            await box.renew()

        return await self._begin(f"{name}c", size, slots, answer)

    async def _begin(self, name: str, size: Size, slots: dict[int, Path], answer: Callable[[Box, _Runsc | None], Awaitable[None]], blank: Box | None = None) -> Box:
        """A box (``blank``, or a new one) that ``answer`` brings to life. Raises Unavailable, and then nothing of it is left."""
        box, driver = (blank, None) if blank else await self._make(name, size)
        try:
            for slot, source in slots.items():
                box.mount(slot, source)
            await answer(box, driver)
        except (Gone, OSError, control.ControlError) as problem:
            words = _last_words(box.directory)
            await box.delete()
            raise Unavailable("sandbox did not start", f"{box.name}: {problem}. {words}", "ephemeral doctor") from problem
        except BaseException:
            await box.delete()
            raise
        return box

    async def _make(self, name: str, size: Size) -> tuple[Box, _Runsc]:
        """The directory, pipes and box of a sandbox that runsc does not know yet."""
        directory = self._run / "sandboxes" / name
        pipes: list[int] = []
        try:
            prepare_directory(directory)
            pipes += os.pipe()
            pipes += os.pipe()
        except OSError as problem:
            for descriptor in pipes:
                os.close(descriptor)
            clear(directory)
            raise Unavailable("sandbox did not start", f"{name}: {problem}", "ephemeral doctor") from problem
        guest_in, our_out, our_in, guest_out = pipes
        channel = await Channel.open(our_in, our_out)
        driver = _Runsc(self, name, guest_in, guest_out)
        return Box(name, directory, channel, Cgroup(f"{self._group}/{name}"), size, driver, driver.exit_status), driver

    async def _runsc_of(self, box: Box, driver: _Runsc | None, root: Path, *verb: str) -> None:
        """Have runsc ``verb`` the sandbox that _make() made, with its ends of the pipes. Raises Gone, OSError."""
        assert driver
        (box.directory / "config.json").write_text(json.dumps(self.spec(box.directory / "slots", box.name, box.size, root)))
        stderr = os.open(box.directory / "stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            process = await asyncio.create_subprocess_exec(
                *self.command(*verb, f"--bundle={box.directory}", box.name),
                stdin=driver.guest_in, stdout=driver.guest_out, stderr=stderr, start_new_session=True)
        finally:
            os.close(stderr)
            driver.hand_over()
        try:
            async with asyncio.timeout(BOOT_TIMEOUT_SECONDS):
                status = await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise Gone("crashed", f"runsc {verb[0]} was not through after {BOOT_TIMEOUT_SECONDS:.0f} s") from None
        if status:
            raise Gone("crashed", f"runsc {verb[0]} failed")

    # ------------------------------------------------------------------------------------------------ blanks

    def _blank(self, size: Size, root: Path) -> Box | None:
        """A sandbox that was created beforehand, if there is one of this root filesystem and scratch size; another is made behind."""
        if root != self._rootfs or self._closing:
            return None
        self._tasks.start(self.fill_blanks(size), "fill blanks")
        for box in list(self._blanks):
            if not box.alive:
                self._blanks.remove(box)
                self._tasks.start(box.delete(), "delete a dead blank")
            elif box.size.disk_bytes == size.disk_bytes and box.size.pids == size.pids:
                self._blanks.remove(box)
                return box
        return None

    async def fill_blanks(self, size: Size) -> None:
        """Create sandboxes that wait for a snapshot, until there are as many as wanted: 22 MB each, and frozen."""
        async with self._filling:
            while self._by_socket and len(self._blanks) < self._blanks_wanted and not self._closing:
                async with self._starts:
                    try:
                        box = await whole(self._create(f"s{secrets.token_hex(5)}", size))
                    except Unavailable as problem:
                        log.warning("no blank sandbox: %s", problem)
                        return
                box.freeze()
                self._blanks.append(box)

    async def _create(self, name: str, size: Size) -> Box:
        async def answer(box: Box, driver: _Runsc | None) -> None:
            await self._runsc_of(box, driver, self._rootfs, "create")

        return await self._begin(name, size, {}, answer)

    def spec(self, slots: Path, name: str, size: Size, root: Path | None = None) -> dict[str, Any]:
        """The hardened spec of sandbox ``name``."""
        return spec.oci(root or self._rootfs, slots, self._guest, f"{self._group}/{name}", size)

    async def remove(self, name: str) -> None:
        """Kill and delete what runsc and the kernel know of ``name``. Never raises."""
        cgroup = Cgroup(f"{self._group}/{name}")
        await _bury(cgroup)
        status, out = await run(*self.command("delete", "--force", name))
        if status and "does not exist" not in out:
            log.warning("runsc delete of %s: %s", name, out[-300:])
        cgroup.remove()

    def state_file(self, name: str) -> Path:
        """Where runsc writes what it knows of a sandbox."""
        return self._root / f"{name}_sandbox:{name}.state"

    def control(self, name: str) -> Path:
        """The control socket of sandbox ``name``."""
        return self._root / f"runsc-{name}.sock"

    def command(self, *arguments: str) -> list[str]:
        return [str(self._runsc), f"--root={self._root}", *FLAGS, *arguments]

    async def reap(self) -> int:
        """Kill and remove every sandbox of our group: nobody else uses this state directory (the daemon holds its lock)."""
        left = self._run / "sandboxes"
        names = {Path(path).name for path in cgroups.children(self._group)} | {entry.name for entry in left.iterdir()}
        await asyncio.gather(*(self._reap(name) for name in names))
        # runsc is not asked to forget them: it waits for sentries that are dead and that nobody has collected yet, as where PID 1 does not.
        shutil.rmtree(self._root, ignore_errors=True)
        self._root.mkdir(mode=0o700)
        return len(names)

    async def _reap(self, name: str) -> None:
        cgroup = Cgroup(f"{self._group}/{name}")
        await _bury(cgroup)
        cgroup.remove()
        clear(self._run / "sandboxes" / name)


class _Runsc:
    """Driver of one sandbox by runsc's command line. ``guest_in`` and ``guest_out`` are the guest's ends of its pipes, until runsc has them."""

    def __init__(self, runtime: GVisor, name: str, guest_in: int, guest_out: int):
        self._runtime = runtime
        self._name = name
        self.guest_in = guest_in
        self.guest_out = guest_out

    def hand_over(self) -> None:
        """Close our copies: the pipes then end with the sandbox."""
        for descriptor in (self.guest_in, self.guest_out):
            if descriptor >= 0:
                os.close(descriptor)
        self.guest_in = self.guest_out = -1

    async def interrupt(self) -> None:
        try:
            await asyncio.to_thread(control.signal, self._runtime.control(self._name), self._name, signal.SIGINT, INTERRUPT_DELIVERY_SECONDS)
        except (control.ControlError, OSError) as problem:
            status, out = await run(*self._runtime.command("kill", self._name, str(int(signal.SIGINT))))
            if status:
                log.warning("%s was not interrupted: %s; by the command line: %s", self._name, problem, out[-300:].strip())

    async def out_of_memory(self) -> bool:
        return False  # its control group outlives it: that was asked first

    async def exit_status(self) -> int | None:
        """The sentry ends with its container's status, and is our child; sweep() collects it later."""
        deadline = time.monotonic() + 1.0
        with contextlib.suppress(OSError, ValueError, KeyError):
            state = self._runtime.state_file(self._name)
            pid = json.loads(state.read_text())["sandbox"]["pid"]
            while time.monotonic() < deadline:
                if found := os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):  # noqa: ASYNC222  it does not block
                    return found.si_status if found.si_code == os.CLD_EXITED else 128 + found.si_status
                await asyncio.sleep(0.005)
        return None

    async def checkpoint(self, image: Path) -> None:
        # Uncompressed: 0.3 s to restore instead of 1.7.
        status, out = await run(*self._runtime.command(
            "checkpoint", f"--image-path={image}", "--compression=none", "--exclude-committed-zero-pages", self._name))
        if status:
            raise Unavailable("snapshot failed", f"runsc checkpoint of {self._name}: {out[-300:]}", "ephemeral doctor")

    async def delete(self) -> None:
        self.hand_over()
        await self._runtime.remove(self._name)


def _last_words(directory: Path) -> str:
    with contextlib.suppress(OSError):
        return (directory / "stderr").read_text(errors="replace")[-400:].strip()
    return ""


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
