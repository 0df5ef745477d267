"""One running sandbox: its guest's frames, its slots, its control group.

Both runtimes hand these out; what differs between them (how a process is signalled, snapshotted and deleted) is the
``Driver`` inside.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import secrets
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from ephemeral import wire
from ephemeral_sandboxd import mounts
from ephemeral_sandboxd.runtimes.cgroups import Cgroup
from ephemeral_sandboxd.runtimes.frames import BadFrame, Channel
from ephemeral_sandboxd.runtimes.protocol import Size, Usage
from ephemeral_sandboxd.runtimes.spec import SLOT_COUNT, SLOTS

INTERRUPT_DELIVERY_SECONDS = 5.0
INTERRUPT_GRACE_SECONDS = 2.0
"""From the signal's delivery, which takes a busy host a while that is not the code's fault."""
LARGEST_ANSWER_BYTES = 48 << 20
"""Rich outputs of one execution together; a guest that sends more is cut off."""


OnNeed = Callable[[str], Awaitable[dict[str, list[str]] | None]]
"""Asked when running code imports a module that nothing provides: the search paths (``slots``, ``first``) once it is mounted, or None."""
OnInstall = Callable[[list[str]], Awaitable[dict[str, Any]]]
"""Asked when running code wants packages (``%pip install``): ``ok``, ``text`` for its reader, and the search paths where it worked."""
OnEvent = Callable[[str, Any], None]
"""Told as it happens: ``started`` (None), ``stdout`` and ``stderr`` (text), ``output`` (``mime`` and ``data``)."""

INBOX_FRAMES = 1000
UNREAD_BYTES = 64 << 20
"""What a tunnel may leave in the pipe's buffer: a guest that does not read, and asks on, is hostile."""
FILES_LISTED = 10_000
LARGEST_FILE_BYTES = 256 << 20
FILE_PIECE_BYTES = 4 << 20
INSTALLS_AT_MOST = 100
"""Questions for packages that one execution may ask."""


class Gone(Exception):
    """The sandbox died. ``verdict`` is the wire's word for it, ``reason`` one sentence with what to do."""

    def __init__(self, verdict: wire.Verdict, reason: str):
        super().__init__(reason)
        self.verdict = verdict
        self.reason = reason


FileTrouble = Literal["not_found", "not_allowed", "exists", "too_large", "no_space", "other"]


class FileProblem(Exception):
    """A file of a sandbox could not be read or written. ``reason`` is one sentence."""

    def __init__(self, kind: FileTrouble, reason: str):
        super().__init__(reason)
        self.kind = kind
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
    interrupted: Literal["timeout", "asked"] | None = None
    peak_bytes: int | None = None
    """Most memory that the sandbox held meanwhile, its children included, as the host's kernel counts it."""
    cpu_ms: float | None = None
    """CPU time of the whole sandbox meanwhile."""


@dataclass
class _Hearing:
    """Who listens to an execution, and how much it has said."""

    identity: int
    answer: Answer
    output_bytes: int
    on_need: OnNeed | None
    on_install: OnInstall | None
    on_event: OnEvent | None
    text: int = 0
    rich: int = 0
    installs: int = 0

    asking: asyncio.Timeout | None = None
    """Around what the code waits for, while the host finds it."""

    def tell(self, kind: str, value: Any) -> None:
        if self.on_event:
            self.on_event(kind, value)

    async def need(self, module: str) -> dict[str, Any]:
        paths = await self._ask(self.on_need(module)) if self.on_need else None
        return {"found": paths is not None, **(paths or {})}

    async def install(self, requirements: object) -> dict[str, Any]:
        self.installs += 1
        if self.on_install is None or not isinstance(requirements, list):
            return {"ok": False, "text": "packages cannot be installed here"}
        if self.installs > INSTALLS_AT_MOST:
            return {"ok": False, "text": f"one execution may ask for packages {INSTALLS_AT_MOST} times"}
        answer = await self._ask(self.on_install([str(requirement)[:200] for requirement in requirements[:64]]))
        return answer or {"ok": False, "text": "interrupted"}

    async def _ask(self, question: Awaitable[dict[str, Any] | None]) -> dict[str, Any] | None:
        """Its answer; None when interrupt() came first."""
        try:
            async with asyncio.timeout(None) as self.asking:
                return await question
        except TimeoutError:
            return None
        finally:
            self.asking = None

    def stop_asking(self) -> None:
        """What is found later is of use to the next execution."""
        if self.asking:
            self.asking.reschedule(0)
            self.asking = None


class Box:
    """A sandbox whose guest answers. One request is under way at a time; others queue in order."""

    def __init__(self, name: str, directory: Path, channel: Channel, cgroup: Cgroup, size: Size, driver: Driver,
                 exit_status: Callable[[], Awaitable[int | None]] | None = None):
        """``exit_status`` is asked about a sandbox that died, where its runtime may know: as shells have it, 128 + n for signal n."""
        self.name = name
        self.directory = directory
        self.size = size
        self.slots: dict[int, Path] = {}
        self.frozen = False
        self.deleted = False
        self._channel = channel
        self._cgroup = cgroup
        self._driver = driver
        self._exit_status = exit_status
        self._lock = asyncio.Lock()
        self._requests = 0
        self._gone: Gone | None = None
        self._hearing: _Hearing | None = None
        """Of the execution under way."""
        self._delivery = asyncio.Lock()
        """Held while an interrupt is on its way: the execution after the one it is meant for waits for that."""
        self._inbox: asyncio.Queue[dict[str, Any] | Exception] | None = None
        """Where _read_on() puts frames, once a tunnel is open."""
        self._pump: asyncio.Task[None] | None = None
        self.on_network: Callable[[dict[str, Any]], None] | None = None

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

    async def execute(self, code: str, *, language: str, timeout: float, output_bytes: int, slots: list[str], first: list[str],
                      stdin: str | None = None, interactive: bool = False, one_shot: bool = False,
                      on_sent: Callable[[], None] | None = None, on_need: OnNeed | None = None, on_install: OnInstall | None = None,
                      on_event: OnEvent | None = None) -> Answer:
        """Run ``code``. Never raises Gone: a death is part of the answer, with all that was printed before it.

        ``stdin`` is all that the code can read, unless it is ``interactive``: then it waits for what feed() brings. ``one_shot`` code has a
        namespace of its own, thrown away after it; modules it imported, files, and all else that a process has, stay.
        """
        async with self._lock:
            answer = Answer(arrived=time.perf_counter())
            request: dict[str, Any] = {"code": code, "language": language, "output_bytes": output_bytes, "slots": slots, "first": first}
            request |= {key: value for key, value in (("stdin", stdin), ("interactive", interactive), ("one_shot", one_shot)) if value}
            try:
                self.thaw()
                self._cgroup.reset_peak()
                cpu_ms = self._cpu_ms()
                hearing = self._hearing = _Hearing(self._send("execute", request), answer, output_bytes, on_need, on_install, on_event)
                if on_sent:
                    on_sent()
                try:
                    async with asyncio.timeout(timeout):
                        await self._collect(hearing)
                except TimeoutError:
                    answer.interrupted = "timeout"
                    await self._end_overdue(hearing, timeout)
                answer.ended = time.perf_counter()
                answer.cpu_ms = self._cpu_ms() - cpu_ms
                answer.peak_bytes = self._cgroup.peak_bytes()
            except Gone as gone:
                answer.gone = gone
                answer.ended = time.perf_counter()
            finally:
                self._hearing = None
            async with self._delivery:
                return answer

    async def interrupt(self) -> bool:
        """Have the execution under way end now. The session's variables survive, unless the code ignores it. False when none is under way."""
        hearing = self._hearing
        if hearing is None or self._gone:
            return False
        hearing.answer.interrupted = hearing.answer.interrupted or "asked"
        asyncio.get_running_loop().call_later(INTERRUPT_DELIVERY_SECONDS, self._insist, hearing)
        async with self._delivery:
            await self._driver.interrupt()
        hearing.stop_asking()
        return True

    def _insist(self, hearing: _Hearing) -> None:
        """What was asked to end has had its time."""
        if self._hearing is hearing:
            self._lost("interrupted", "the code ignored the interrupt, so its sandbox was ended")

    def feed(self, text: str, close: bool = False) -> bool:
        """More standard input for an interactive execution; ``close``: this is all. Does nothing when none is under way. False when the
        guest has not taken what it was sent before."""
        if self._channel.unsent_bytes > UNREAD_BYTES:
            return False
        if self._hearing is not None and not self._gone:
            self._channel.send({"op": "stdin", "id": self._hearing.identity, "text": text, "close": close})
        return True

    async def _collect(self, hearing: _Hearing) -> None:
        """Listen to the execution until it is over. Raises Gone."""
        answer = hearing.answer
        while True:
            frame = await self._receive()
            if frame.get("id") != hearing.identity:
                continue
            match frame.get("op"):
                case "started":
                    if answer.started is None:
                        answer.started = time.perf_counter()
                        hearing.tell("started", None)
                case "stdout" | "stderr" as stream:
                    piece = str(frame.get("text", ""))
                    hearing.text += len(piece)
                    # The guest keeps to its allowance; one that does not is lying about everything else, too.
                    if hearing.text > 2 * hearing.output_bytes + 65536:
                        raise self._lost("output", "it sent more output than it was allowed: print less, or write to a file")
                    getattr(answer, stream).append(piece)
                    hearing.tell(stream, piece)
                case "output":
                    output = {"mime": str(frame.get("mime", ""))[:100], "data": str(frame.get("data", ""))}
                    hearing.rich += len(output["data"])
                    if hearing.rich > LARGEST_ANSWER_BYTES:
                        raise self._lost("output", "its rich results are larger than 48 MB: show smaller images or tables")
                    answer.outputs.append(output)
                    hearing.tell("output", output)
                case "need":
                    found = await hearing.need(str(frame.get("module", ""))[:200])
                    self._channel.send({"op": "found", "question": frame.get("question"), **found})
                case "install":
                    installed = await hearing.install(frame.get("requirements"))
                    self._channel.send({"op": "installed", "question": frame.get("question"), **installed})
                case "done":
                    if not isinstance(frame.get("late") or [], list):
                        raise self._nonsense()
                    answer.fields = frame
                    return

    async def _end_overdue(self, hearing: _Hearing, timeout: float) -> None:
        """SIGINT first: the session's variables survive it. Code that ignores it is killed."""
        try:
            async with asyncio.timeout(INTERRUPT_DELIVERY_SECONDS):
                await self._driver.interrupt()
            async with asyncio.timeout(INTERRUPT_GRACE_SECONDS):
                await self._collect(hearing)
        except TimeoutError:
            raise self._lost("timeout", f"the code ran longer than {timeout:g} s and ignored the interrupt, so its sandbox was ended") from None

    def _cpu_ms(self) -> float:
        """Raises Gone when the control group is."""
        try:
            return self._cgroup.cpu_ms()
        except OSError:
            raise self._lost("crashed", "the sandbox ended while nothing ran in it") from None

    # --------------------------------------------------------------------------------------------- the tunnel

    async def open_network(self, on_network: Callable[[dict[str, Any]], None]) -> None:
        """Open a listener inside, whose connections come out as ``net_…`` frames, to ``on_network`` (which must not raise). From now on frames
        are read at all times, not only while a request is under way. Raises Gone."""
        async with self._lock:  # nobody reads now but the pump
            self.on_network = on_network
            self._inbox = asyncio.Queue()
            self._pump = asyncio.create_task(self._read_on(self._inbox), name=f"tunnel of {self.name}")
        await self.request("network")

    def send_network(self, frame: dict[str, Any]) -> None:
        """One frame into the tunnel. Does nothing once the sandbox is gone."""
        if self._gone:
            return
        if self._channel.unsent_bytes > UNREAD_BYTES:
            self._lost("crashed", "its guest does not read what it is sent")
            return
        self.thaw()
        self._channel.send(frame)

    async def _read_on(self, inbox: asyncio.Queue[dict[str, Any] | Exception]) -> None:
        """What is no frame of the tunnel waits in ``inbox`` for the request that it answers."""
        try:
            while True:
                frame = await self._channel.receive()
                if str(frame.get("op", "")).startswith("net_"):
                    if self.on_network:
                        self.on_network(frame)
                elif inbox.qsize() < INBOX_FRAMES:
                    inbox.put_nowait(frame)
                else:
                    raise BadFrame("more frames than anybody asked for")
        except (EOFError, BadFrame) as problem:
            inbox.put_nowait(problem)

    # --------------------------------------------------------------------------------------------- files

    async def list_files(self, path: str) -> list[dict[str, Any]]:
        """What a directory holds (or the one file that ``path`` is): ``name``, ``path``, ``kind``, ``size_bytes``, ``modified_at``; at most
        10,000. Relative paths are below /scratch. Raises FileProblem, Gone."""
        answer = await self._file("list", path)
        try:
            return [{"name": str(entry["name"])[:255], "path": str(entry["path"])[:4096],
                     "kind": entry["kind"] if entry["kind"] in ("file", "directory", "link") else "other",
                     "size_bytes": int(entry["size_bytes"]), "modified_at": float(entry["modified_at"])}
                    for entry in answer["entries"][:FILES_LISTED]]
        except (LookupError, TypeError, ValueError, OverflowError):
            raise self._nonsense() from None

    async def read_file(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """``length`` bytes from ``offset`` on, or all; fewer at its end. Raises FileProblem (``too_large`` beyond 256 MiB), Gone."""
        data = bytearray()
        while (left := LARGEST_FILE_BYTES + 1 - len(data) if length is None else length - len(data)) > 0:
            asked = min(left, FILE_PIECE_BYTES)
            answer = await self._file("read", path, offset=offset + len(data), length=asked)
            try:
                piece = base64.b64decode(str(answer["data"]))[:asked]
            except (LookupError, ValueError):
                raise self._nonsense() from None
            data += piece
            if len(piece) < asked:
                break
        if length is None and len(data) > LARGEST_FILE_BYTES:
            raise FileProblem("too_large", "it is larger than 256 MiB: read it in pieces")
        return bytes(data)

    async def write_file(self, path: str, data: bytes, append: bool = False) -> int:
        """Write ``data`` (replacing the file, or at its end), making the directories on the way; the file's size then. Raises FileProblem, Gone."""
        size = 0
        for start in range(0, max(1, len(data)), FILE_PIECE_BYTES):
            piece = base64.b64encode(data[start:start + FILE_PIECE_BYTES]).decode()
            answer = await self._file("write", path, data=piece, append=append or start > 0, largest=LARGEST_FILE_BYTES)
            try:
                size = int(answer["size"])
            except (LookupError, TypeError, ValueError):
                raise self._nonsense() from None
        return size

    async def make_directory(self, path: str) -> None:
        """And those on the way to it. No error when it is there. Raises FileProblem, Gone."""
        await self._file("make", path)

    async def delete_file(self, path: str) -> None:
        """A file, a link, or a directory with all that is in it. Raises FileProblem, Gone."""
        await self._file("delete", path)

    async def _file(self, do: str, path: str, **fields: Any) -> dict[str, Any]:
        """Done by the guest: as the sandbox's user, in the sandbox's own file system, so that no path and no link leads anywhere else."""
        answer = await self.request("file", do=do, path=path, **fields)
        if problem := answer.get("problem"):
            kind: FileTrouble = answer["kind"] if answer.get("kind") in get_args(FileTrouble) else "other"
            raise FileProblem(kind, str(problem)[:300])
        return answer

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
            if self._inbox is None:
                return await self._channel.receive()
            frame = await self._inbox.get()
            if isinstance(frame, Exception):
                raise frame
            return frame
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
        return self._lost("crashed", _ending(await self._exit_status() if self._exit_status else None))

    def _nonsense(self) -> Gone:
        return self._lost("crashed", "its guest sent an answer that is none of ours")

    def _lost(self, verdict: wire.Verdict, reason: str) -> Gone:
        self._gone = self._gone or Gone(verdict, reason)
        self._cgroup.kill()
        return self._gone

    @property
    def alive(self) -> bool:
        return self._gone is None and not self.deleted and not self._channel.ended

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
        """Memory and processors; a tmpfs keeps its size, and so does what counts processes. Raises OSError when the kernel refuses (for example
        below what is in use)."""
        self._cgroup.resize(size)
        self.size = dataclasses.replace(size, pids=self.size.pids, disk_bytes=self.size.disk_bytes)

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
        if self._pump:
            self._pump.cancel()
            await asyncio.wait([self._pump])
        await self._driver.delete()
        self._cgroup.close()  # now that nobody looks there any more: an execution that was under way asked it why it ended
        clear(self.directory)


def _ending(status: int | None) -> str:
    """The sentence for an interpreter that is gone."""
    if status is None:
        return "the sandbox's interpreter ended: the code crashed or exited it"
    if status <= 128:
        return f"the sandbox's interpreter ended with status {status}: the code exited it (os._exit), or something it called did"
    name = signal.Signals(status - 128).name if status - 128 in set(signal.Signals) else f"signal {status - 128}"
    return f"the sandbox's interpreter was ended by {name}: native code that it called crashed, or the code sent the signal itself"


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
