"""One running sandbox: its guest's frames, its slots, its control group.

Both runtimes hand these out; what differs between them (how a process is signalled, snapshotted and deleted) is the
``Driver`` inside.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ephemeral import wire
from ephemeral_sandboxd import mounts
from ephemeral_sandboxd.runtimes.cgroups import Cgroup
from ephemeral_sandboxd.runtimes.frames import BadFrame, Channel
from ephemeral_sandboxd.runtimes.protocol import Size, Usage
from ephemeral_sandboxd.runtimes.spec import SLOT_COUNT, SLOTS

INTERRUPT_DELIVERY_SECONDS = 5.0
INTERRUPT_GRACE_SECONDS = 1.0
"""From the signal's delivery, which takes a busy host a while that is not the code's fault."""
LARGEST_ANSWER_BYTES = 48 << 20
"""Rich outputs of one execution together; a guest that sends more is cut off."""


OnNeed = Callable[[str], Awaitable[dict[str, list[str]] | None]]
"""Asked when running code imports a module that nothing provides: the search paths (``slots``, ``first``) once it is mounted, or None."""


class Gone(Exception):
    """The sandbox died. ``verdict`` is the wire's word for it, ``reason`` one sentence with what to do."""

    def __init__(self, verdict: wire.Verdict, reason: str):
        super().__init__(reason)
        self.verdict = verdict
        self.reason = reason


class Driver(Protocol):
    """What a runtime knows about one sandbox that the box does not."""

    async def interrupt(self) -> None:
        """Send SIGINT to the guest."""
        ...

    async def out_of_memory(self) -> bool:
        """Whether a dead sandbox died of its memory, where somebody remembers it beyond its control group."""
        ...

    async def checkpoint(self, image: Path) -> None:
        """Write the sandbox to ``image`` and end it. Raises errors.Unavailable where it fails or cannot be done."""
        ...

    async def delete(self) -> None:
        """End it, if need be, and leave nothing. Never raises; takes as long as it takes, off the hot path."""
        ...


@dataclass
class Answer:
    """What one execution said and did. Milliseconds on the host's clock but for the ``*_ms`` the guest measured."""

    arrived: float
    started: float | None = None
    ended: float = 0.0
    fields: dict[str, Any] = field(default_factory=dict)
    stdout: list[str] = field(default_factory=list)
    stderr: list[str] = field(default_factory=list)
    outputs: list[dict[str, str]] = field(default_factory=list)
    gone: Gone | None = None
    interrupted: bool = False


class Box:
    """A sandbox whose guest answers. One request is under way at a time; others queue in order."""

    def __init__(self, name: str, directory: Path, channel: Channel, cgroup: Cgroup, size: Size, driver: Driver):
        self.name = name
        self.directory = directory
        self.size = size
        self.slots: dict[int, Path] = {}
        self.frozen = False
        self.deleted = False
        self._channel = channel
        self._cgroup = cgroup
        self._driver = driver
        self._lock = asyncio.Lock()
        self._requests = 0
        self._gone: Gone | None = None

    # --------------------------------------------------------------------------------------------- the guest

    async def hello(self, timeout: float) -> None:
        """Wait for the guest's first frame. Raises Gone."""
        try:
            async with asyncio.timeout(timeout):
                await self._receive()
        except TimeoutError:
            raise self._lost("crashed", f"its guest said nothing for {timeout:.0f} s") from None

    async def request(self, op: str, timeout: float = 60.0, **fields: Any) -> dict[str, Any]:
        """Ask the guest for ``op`` and wait for its answer. Raises Gone, also when it takes longer than ``timeout`` s."""
        async with self._lock:
            self.thaw()
            identity = self._send(op, fields)
            try:
                async with asyncio.timeout(timeout):
                    while True:
                        frame = await self._receive()
                        if frame.get("op") == "done" and frame.get("id") == identity:
                            return frame
            except TimeoutError:
                raise self._lost("timeout", f"{op} took longer than {timeout:.0f} s") from None

    async def execute(self, code: str, *, language: str, timeout: float, output_bytes: int,
                      slots: list[str], first: list[str], on_sent: Callable[[], None] | None = None, on_need: OnNeed | None = None) -> Answer:
        """Run ``code``. Never raises Gone: a death is part of the answer, with all that was printed before it."""
        async with self._lock:
            answer = Answer(arrived=time.perf_counter())
            try:
                self.thaw()
                self._cgroup.reset_peak()
                identity = self._send("execute", {"code": code, "language": language, "output_bytes": output_bytes, "slots": slots, "first": first})
                if on_sent:
                    on_sent()
                try:
                    async with asyncio.timeout(timeout):
                        await self._collect(identity, answer, output_bytes, on_need)
                except TimeoutError:
                    answer.interrupted = True
                    await self._interrupt(identity, answer, output_bytes, timeout)
            except Gone as gone:
                answer.gone = gone
            answer.ended = time.perf_counter()
            return answer

    async def _collect(self, identity: int, answer: Answer, output_bytes: int, on_need: OnNeed | None = None) -> None:
        text = rich = 0
        while True:
            frame = await self._receive()
            if frame.get("id") != identity:
                continue
            match frame.get("op"):
                case "started":
                    answer.started = answer.started or time.perf_counter()
                case "stdout" | "stderr" as stream:
                    piece = str(frame.get("text", ""))
                    text += len(piece)
                    # The guest keeps to its allowance; one that does not is lying about everything else, too.
                    if text > 2 * output_bytes + 65536:
                        raise self._lost("output", "it sent more output than it was allowed: print less, or write to a file")
                    getattr(answer, stream).append(piece)
                case "output":
                    output = {"mime": str(frame.get("mime", ""))[:100], "data": str(frame.get("data", ""))}
                    rich += len(output["data"])
                    if rich > LARGEST_ANSWER_BYTES:
                        raise self._lost("output", "its rich results are larger than 48 MB: show smaller images or tables")
                    answer.outputs.append(output)
                case "need":
                    paths = await on_need(str(frame.get("module", ""))[:200]) if on_need else None
                    self._channel.send({"op": "found", "found": paths is not None, **(paths or {})})
                case "done":
                    if not isinstance(frame.get("late") or [], list):
                        raise self._lost("crashed", "its guest sent an answer that is none of ours")
                    answer.fields = frame
                    return

    async def _interrupt(self, identity: int, answer: Answer, output_bytes: int, timeout: float) -> None:
        """SIGINT first: the session's variables survive it. Code that ignores it is killed."""
        try:
            async with asyncio.timeout(INTERRUPT_DELIVERY_SECONDS):
                await self._driver.interrupt()
            async with asyncio.timeout(INTERRUPT_GRACE_SECONDS):
                await self._collect(identity, answer, output_bytes)
        except TimeoutError:
            raise self._lost("timeout", f"the code ran longer than {timeout:g} s and ignored the interrupt, so its sandbox was ended") from None

    def _send(self, op: str, fields: dict[str, Any]) -> int:
        if self._gone:
            raise self._gone
        self._requests += 1
        self._channel.send({"op": op, "id": self._requests, **fields})
        return self._requests

    async def _receive(self) -> dict[str, Any]:
        if self._gone:
            raise self._gone
        try:
            return await self._channel.receive()
        except EOFError:
            raise await self._died() from None
        except BadFrame as problem:
            raise self._lost("crashed", f"its guest sent {problem}") from None

    async def _died(self) -> Gone:
        """The pipe closed: ask the kernel why, and the runtime."""
        if self._cgroup.out_of_memory() or await self._driver.out_of_memory():
            return self._lost("memory", f"the code used more than {self.size.memory_bytes >> 20} MiB of memory: use less, or ask for a larger sandbox")
        if self._cgroup.out_of_pids():
            return self._lost("killed", f"the code started more than {self.size.pids} processes and threads, so its sandbox was ended")
        return self._lost("crashed", "the sandbox's interpreter ended: the code crashed or exited it")

    def _lost(self, verdict: wire.Verdict, reason: str) -> Gone:
        self._gone = self._gone or Gone(verdict, reason)
        self._cgroup.kill()
        return self._gone

    @property
    def alive(self) -> bool:
        return self._gone is None and not self.deleted

    # --------------------------------------------------------------------------------------------- slots

    def mount(self, slot: int, source: Path) -> str:
        """Bind ``source`` onto ``slot``; it appears inside at once. Returns the path the guest sees."""
        if not 0 <= slot < SLOT_COUNT:
            raise ValueError(f"{self.name} has no slot {slot}")
        mounts.bind(source, self.directory / "slots" / str(slot))
        self.slots[slot] = source
        return f"{SLOTS}/{slot}"

    # --------------------------------------------------------------------------------------------- the group

    def freeze(self) -> None:
        """Stop its processes where they stand: 0 % CPU. Not while a request is under way."""
        if not self.frozen and self.alive and not self._lock.locked():
            with contextlib.suppress(OSError):
                self._cgroup.freeze()
                self.frozen = True

    def thaw(self) -> None:
        if self.frozen:
            self.frozen = False
            with contextlib.suppress(OSError):  # its group is gone: then so is its pipe, which says so to the next who listens
                self._cgroup.thaw()

    def usage(self) -> Usage:
        """Raises OSError when the sandbox is gone."""
        return self._cgroup.usage()

    def resize(self, size: Size) -> None:
        """Raises OSError when the kernel refuses (for example below what is in use)."""
        self._cgroup.resize(size)
        self.size = size

    def yield_cpu(self) -> None:
        """Run only when nobody else wants the processor."""
        self._cgroup.yield_cpu()

    # --------------------------------------------------------------------------------------------- ends

    async def renew(self) -> None:
        """After a restore: fresh randomness."""
        await self.request("renew", seed=secrets.token_hex(16))

    async def checkpoint(self, image: Path) -> None:
        self.thaw()
        await self._driver.checkpoint(image)
        self._gone = Gone("killed", "it became a snapshot")

    async def delete(self) -> None:
        """End it and leave nothing: processes, mounts, groups, directories. Never raises."""
        if self.deleted:
            return
        self.deleted = True
        self._gone = self._gone or Gone("killed", "its session ended")
        self._channel.close()
        await self._driver.delete()
        clear(self.directory)


async def whole(start: Coroutine[Any, Any, Box]) -> Box:
    """Await ``start``. Cancelled, let it come to its end and delete what it made: cut off in the middle, it would leave pieces that
    nobody knows of, or that a process or thread on its way goes on to make."""
    task = asyncio.create_task(start)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled() and not task.exception():
            await task.result().delete()
        raise


def prepare_directory(directory: Path) -> Path:
    """Make a sandbox's directory with its empty, shared slots. Returns the slots' path."""
    slots = directory / "slots"
    for slot in range(SLOT_COUNT):
        (slots / str(slot)).mkdir(parents=True, exist_ok=True)
    mounts.bind(slots, slots, readonly=False)
    mounts.make_shared(slots)
    return slots


def clear(directory: Path) -> None:
    """Unmount and remove what prepare_directory() made. Never descends into anything that is still mounted."""
    slots = directory / "slots"
    for path in (*(slots / str(slot) for slot in range(SLOT_COUNT)), slots):
        while mounts.is_mount(path):
            mounts.unmount(path)
    shutil.rmtree(directory, ignore_errors=True)
