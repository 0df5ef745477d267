"""The wheel store: every wheel once, by its hash, unpacked.

    STORE/wheels/<sha256>/site/          what the wheel holds, ready to be on sys.path; never changes
                          manifest.json  its name, and how many files and bytes ``site`` has
                          record.csv     the wheel's own list of files and hashes
                          compiled/      hard links of site plus __pycache__, once the wheel has been byte-compiled (for 3.11;
                          compiled.json  counts for it, and a hash of the .pyc files       for others: compiled-3.13/ and so on)
    STORE/downloads/<sha256>/<file>      a download on its way, resumed after an interruption
    STORE/building/…                     what is not whole yet; swept at start

A wheel appears by one rename, whole. Nothing of a wheel is ever executed here, and no source distribution gets in. Who works on a wheel that
is here holds a lock on its directory, which who would take it away needs alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import aiohttp

from ephemeral_sandboxd.environments import locks, records, scrub, unpack
from ephemeral_sandboxd.environments.compose import link_tree
from ephemeral_sandboxd.environments.errors import BadWheel, IndexUnreachable, StoreFull
from ephemeral_sandboxd.environments.flights import Flights
from ephemeral_sandboxd.environments.index import Index, local_path
from ephemeral_sandboxd.environments.resolve import Wheel
from ephemeral_sandboxd.environments.scrub import ScrubReport
from ephemeral_sandboxd.errors import SandboxdError

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""(what is being done, how much is done, how much there is to do); bytes for downloads, items otherwise."""

Compiler = Callable[[Sequence[tuple[Path, Path]]], Awaitable[None]]
"""For each (source, destination): write ``<folder>/__pycache__/<module>.<tag>.pyc`` (``unchecked-hash``) for every ``<folder>/<module>.py``
below source to the same place below destination, an empty directory. Leaves out what does not compile. Runs where untrusted input may."""

_DOWNLOADS, _UNPACKS, _TRIES = 6, 2, 3
_CHUNK = 256 << 10
_OWN_PROCESS_BYTES = 1 << 20
"""A wheel larger than this is unpacked by a process of its own, so that the event loop keeps its pace."""
_BATCH_WHEELS = 24
_ABANDONED_SECONDS = 86400
_SCRUB_PAUSE_SECONDS = 1.0
_FULL = (errno.ENOSPC, errno.EDQUOT)
_PYC = re.compile(r"(?P<module>[^/]+)\.cpython-\d+\.pyc")


@dataclass(frozen=True)
class Counts:
    """What a directory tree holds: a cheap witness that nothing is missing or cut short."""

    files: int
    bytes: int

    def witnesses(self, directory: Path) -> bool:
        """Whether ``directory`` still holds that. More bytes are no damage: some hosts append their own authority to every CA bundle
        that they find (certifi's), and a crash or a full disk only ever leaves files missing or short."""
        found = Counts.of(directory)
        return found.files == self.files and found.bytes >= self.bytes

    @classmethod
    def of(cls, directory: Path) -> Counts:
        files = size = 0
        for entry in _walk(directory):
            files += 1
            size += entry.stat(follow_symlinks=False).st_size
        return cls(files, size)


class Store:
    """One store on disk. Several processes may use it at the same time; within one, the environments of all Pythons best share one object.

    ``index`` says how to log in where wheels come from. Its Python is meant wherever a method is given none.
    """

    def __init__(self, root: Path, index: Index) -> None:
        self.root = root
        self.changes = 0
        """Counts what makes a composition of wheels out of date: wheels that were replaced, or forgotten."""
        self._index = index
        self._users = 1
        self._compiled_trees: set[tuple[str, str]] = set()
        """(hash, tree) of those that are known to be there."""
        self._wheels = root / "wheels"
        self._downloads = root / "downloads"
        self._building = root / "building"
        self._sound: dict[str, Counts] = {}
        """Wheels that this process has found whole, by hash."""
        self._sizes: dict[str, int] = {}
        self._uncompilable: set[tuple[str, str]] = set()
        self._flights: Flights[None] = Flights()
        self._received: dict[str, int] = {}
        self._listeners: dict[str, list[Callable[[], None]]] = {}
        self._downloading = asyncio.Semaphore(_DOWNLOADS)
        self._unpacking = asyncio.Semaphore(_UNPACKS)
        self._compiling = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None
        for folder in (self._wheels, self._downloads, self._building):
            folder.mkdir(parents=True, exist_ok=True)
        _sweep(self._building, self._downloads)

    def share(self) -> Store:
        """This store, for one more user: each of them closes it, and the last one's close() counts."""
        self._users += 1
        return self

    def layer(self, sha256: str, python: str | None = None) -> Path:
        """The directory to import the wheel from: compiled if that has been done."""
        return self._wheels / sha256 / (self._tree(python) if self.compiled(sha256, python) else "site")

    def compiled(self, sha256: str, python: str | None = None) -> bool:
        tree = self._tree(python)
        if (sha256, tree) not in self._compiled_trees and (self._wheels / sha256 / f"{tree}.json").exists():
            self._compiled_trees.add((sha256, tree))
        return (sha256, tree) in self._compiled_trees

    def use(self, hashes: Iterable[str]) -> None:
        """Marks the wheels as used now, which keeps them for a while from being evicted. Those that are gone are no error."""
        for sha256 in hashes:
            with contextlib.suppress(OSError):
                os.utime(self._wheels / sha256)

    def forget(self, hashes: Iterable[str]) -> None:
        """What was found whole has to be looked at again: somebody may have taken it away."""
        gone = set(hashes)
        if gone:
            self.changes += 1
        for sha256 in gone:
            self._sound.pop(sha256, None)
            self._sizes.pop(sha256, None)
        self._compiled_trees = {known for known in self._compiled_trees if known[0] not in gone}

    def discard(self, folder: Path) -> None:
        """Take a directory of the store out of the way, if it is there. It is not deleted now, because a sandbox may have it mounted: a later
        start sweeps it away."""
        place = Path(tempfile.mkdtemp(prefix="discarded-", dir=self._building))
        try:
            os.rename(folder, place / folder.name)
        except FileNotFoundError:  # somebody else was faster
            place.rmdir()

    def _tree(self, python: str | None) -> str:
        """Byte code is one Python's; the first that there was has the short name."""
        python = python or self._index.target.python
        return "compiled" if python == "3.11" else f"compiled-{python}"

    async def scrub(self, named: Mapping[str, Wheel]) -> ScrubReport:
        """Check every wheel against its list of hashes, one at a time, yielding between them. A damaged one that is ``named`` is fetched
        again and takes its place whole; others are discarded."""
        report = ScrubReport()
        loop = asyncio.get_running_loop()
        reader = ThreadPoolExecutor(1, "scrub", initializer=scrub.politely)
        try:
            for entry in sorted(await loop.run_in_executor(reader, os.listdir, self._wheels)):
                began = time.monotonic()
                folder = self._wheels / entry
                trouble = await loop.run_in_executor(reader, scrub.damage, folder)
                report.checked += 1
                if trouble and folder.exists():
                    report.damaged[entry] = trouble
                    if await self._heal(entry, trouble, named.get(entry)):
                        report.healed.append(entry)
                elif folder.exists():
                    for tree in await loop.run_in_executor(reader, scrub.damaged_trees, folder):
                        log.warning("%s of wheel %s is damaged: it is made again", tree, entry[:12])
                        report.recompile.append(entry)
                        await asyncio.to_thread(self._discard_tree, folder, tree)
                        self.forget([entry])
                # As long a pause as the work took: the disk and the processor are somebody else's half of the time at least.
                await asyncio.sleep(min(_SCRUB_PAUSE_SECONDS, time.monotonic() - began))
        finally:
            reader.shutdown(wait=False, cancel_futures=True)
        return report

    async def _heal(self, sha256: str, trouble: str, wheel: Wheel | None) -> bool:
        """Replace a damaged wheel by itself, fetched anew; without ``wheel``, nobody needs it and it goes."""
        if wheel is None:
            log.warning("wheel %s in the store is damaged (%s) and nothing needs it: discarded", sha256[:12], trouble)
            await asyncio.to_thread(self.discard, self._wheels / sha256)
        else:
            try:
                await self._fetch(wheel, replace=True)
            except SandboxdError as problem:
                log.error("wheel %s (%s) in the store is damaged (%s) and cannot be fetched again now: %s", wheel.filename, sha256[:12], trouble, problem)
                return False
            log.warning("wheel %s in the store was damaged (%s): fetched again", wheel.filename, trouble)
            folder = self._wheels / sha256
            if flaw := await asyncio.to_thread(scrub.damage, folder):  # then it comes like that, and has the right hash
                log.info("wheel %s is at odds with its own list of files (%s): held to what it holds", wheel.filename, flaw)
                await asyncio.to_thread(scrub.adopt, folder)
        self.forget([sha256])
        return wheel is not None

    def size(self, sha256: str) -> int:
        """Bytes of the unpacked wheel; 0 when it is not here."""
        if sha256 not in self._sizes:
            counts = self._sound.get(sha256) or _counts(self._wheels / sha256 / "manifest.json")
            if counts is None:
                return 0
            self._sizes[sha256] = counts.bytes
        return self._sizes[sha256]

    async def ensure(self, wheels: Iterable[Wheel], progress: Progress | None = None) -> int:
        """Has all of ``wheels`` unpacked in the store; returns how many had to be fetched.

        Raises IndexUnreachable, BadWheel or StoreFull; what arrived before that stays. Damaged entries are made anew.
        """
        wanted = {wheel.sha256: wheel for wheel in wheels}
        unknown = [sha256 for sha256 in wanted if sha256 not in self._sound]
        if not unknown:
            return 0
        sound = await asyncio.to_thread(self._check, unknown)
        self._sound.update(sound)
        missing = [wanted[sha256] for sha256 in unknown if sha256 not in sound]
        if not missing:
            return 0
        with self._reporting(missing, progress):
            results = await asyncio.gather(*(self._flights.join(wheel.sha256, partial(self._fetch, wheel)) for wheel in missing),
                                           return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return len(missing)

    async def compile(self, hashes: Iterable[str], compiler: Compiler, progress: Progress | None = None, python: str | None = None) -> int:
        """Byte-compiles those of ``hashes`` that are not yet; returns how many were. A failure is logged and not tried again in this
        process: the wheel works without."""
        tree = self._tree(python)
        async with self._compiling:
            pending = [sha256 for sha256 in dict.fromkeys(hashes)
                       if not self.compiled(sha256, python) and (sha256, tree) not in self._uncompilable and (self._wheels / sha256 / "site").is_dir()]
            done = 0
            for start in range(0, len(pending), _BATCH_WHEELS):
                batch = pending[start:start + _BATCH_WHEELS]
                if progress:
                    progress("compile", start, len(pending))
                try:
                    with locks.directories(self._wheels / sha256 for sha256 in batch):
                        await self._compile_batch(batch, compiler, tree)
                    done += len(batch)
                except Exception as error:
                    if isinstance(error, OSError) and error.errno in _FULL:
                        raise _full(self._building) from None
                    self._uncompilable.update((sha256, tree) for sha256 in batch)
                    log.exception("byte-compilation of %d wheels failed; they are used uncompiled", len(batch))
            if progress and pending:
                progress("compile", len(pending), len(pending))
            return done

    async def close(self) -> None:
        self._users -= 1
        if self._users:
            return
        await self._flights.close()
        if self._session:
            await self._session.close()

    # ------------------------------------------------------------------------------------------------------ checking

    def _check(self, hashes: Iterable[str]) -> dict[str, Counts]:
        """Those that are here and whole; a damaged one is set aside."""
        sound = {}
        for sha256 in hashes:
            folder = self._wheels / sha256
            counts = _counts(folder / "manifest.json")
            if counts and counts.witnesses(folder / "site"):
                sound[sha256] = counts
                for marker in folder.glob("compiled*.json"):
                    compiled = _counts(marker)
                    if compiled is None or not compiled.witnesses(folder / marker.stem):
                        log.warning("%s files of wheel %s are damaged: they will be made again", marker.stem, sha256[:12])
                        self._discard_tree(folder, marker.stem)
            elif folder.exists():
                log.warning("wheel %s in the store is damaged: it is fetched again", sha256[:12])
                self.discard(folder)
        return sound

    def _discard_tree(self, folder: Path, tree: str) -> None:
        (folder / f"{tree}.json").unlink(missing_ok=True)
        self._compiled_trees.discard((folder.name, tree))
        self.discard(folder / tree)

    # ------------------------------------------------------------------------------------------------------ fetching

    async def _fetch(self, wheel: Wheel, replace: bool = False) -> None:
        """Download, check, unpack, publish one wheel; ``replace`` the one that is there, in one moment."""
        try:
            local = local_path(wheel.url)
            if local is not None:
                await asyncio.to_thread(_check_local, local, wheel)
                await self._publish(wheel, local, replace)
            else:
                async with self._downloaded(wheel) as file:
                    await self._publish(wheel, file, replace)
        except OSError as error:
            raise (_full(self._building) if error.errno in _FULL else BadWheel(f"{wheel.filename}: {error}")) from None
        self._advance(wheel.sha256, wheel.size)

    async def _publish(self, wheel: Wheel, file: Path, replace: bool) -> None:
        building = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix=f"{wheel.sha256[:12]}-", dir=self._building))
        try:
            async with self._unpacking:
                await _unpack(file, building / "site")
            counts = await asyncio.to_thread(Counts.of, building / "site")
            records.write(building / "manifest.json", {"name": wheel.name, "version": wheel.version, "filename": wheel.filename, **vars(counts)})
            building.chmod(0o755)
            if replace and (self._wheels / wheel.sha256).exists():
                self.discard(self._wheels / wheel.sha256)
            _rename(building, self._wheels / wheel.sha256)
            self._sound[wheel.sha256] = counts
        finally:
            await asyncio.to_thread(shutil.rmtree, building, True)

    @contextlib.asynccontextmanager
    async def _downloaded(self, wheel: Wheel) -> AsyncIterator[Path]:
        """The wheel's file, complete and of the right hash. It is kept for resuming when the connection broke, and gone otherwise."""
        folder = self._downloads / wheel.sha256
        folder.mkdir(exist_ok=True)
        # A second process that wants the same wheel downloads its own copy: two writers would spoil each other's.
        with (folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                folder.mkdir(exist_ok=True)  # whoever held the lock before has removed it
            except BlockingIOError:
                folder = Path(tempfile.mkdtemp(dir=self._building))
            try:
                async with self._downloading:
                    await self._download(wheel, folder / wheel.filename)
                yield folder / wheel.filename
            except IndexUnreachable:
                raise
            except BaseException as error:
                if not isinstance(error, asyncio.CancelledError):
                    shutil.rmtree(folder, ignore_errors=True)
                raise
            else:
                await asyncio.to_thread(shutil.rmtree, folder, True)

    async def _download(self, wheel: Wheel, file: Path) -> None:
        """Up to three connections, each going on where the last one broke off."""
        problem = ""
        for attempt in range(_TRIES):
            if attempt:
                await asyncio.sleep(0.5 * 2 ** attempt)
            resumed = file.exists() and file.stat().st_size > 0
            try:
                with file.open("ab") as stream:
                    await self._receive(wheel, stream)
            except (aiohttp.ClientError, TimeoutError) as error:
                problem = str(error) or type(error).__name__
                continue
            found = await asyncio.to_thread(_sha256, file)
            if found == wheel.sha256:
                return
            file.unlink()
            if not resumed:
                raise BadWheel(f"{wheel.filename} has sha256 {found[:16]}…, the lock says {wheel.sha256[:16]}…",
                               "the index or something on the way altered it; nothing of it was used")
            problem = "the resumed file was not the same"
        raise IndexUnreachable(f"{wheel.filename} could not be downloaded: {problem}")

    async def _receive(self, wheel: Wheel, stream: BinaryIO) -> None:
        """One connection: appends to ``stream``. Raises aiohttp.ClientError or TimeoutError when it breaks off."""
        have = stream.tell()
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
        async with self._client().get(wheel.url, headers=headers, auth=self._index.login(wheel.url)) as answer:
            if answer.status == 416:  # nothing left to send, or nonsense: the hash decides
                return
            if answer.status >= 500 or answer.status in (408, 429):
                raise aiohttp.ClientError(f"the index answered {answer.status}")
            if answer.status >= 400:
                raise IndexUnreachable(f"the index answered {answer.status} for {wheel.filename}")
            if answer.status != 206:
                stream.seek(0)
                stream.truncate()
            async for chunk in answer.content.iter_chunked(_CHUNK):
                stream.write(chunk)
                self._advance(wheel.sha256, stream.tell())
                if wheel.size and stream.tell() > wheel.size:
                    return  # more than was announced: the hash will tell

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=20, sock_read=60)
            connector = aiohttp.TCPConnector(limit=_DOWNLOADS, ssl=self._index.tls())
            self._session = aiohttp.ClientSession(timeout=timeout, connector=connector, trust_env=True)
        return self._session

    @contextlib.contextmanager
    def _reporting(self, wheels: Sequence[Wheel], progress: Progress | None) -> Iterator[None]:
        """Calls ``progress`` with the bytes of all ``wheels`` together, whoever started their downloads."""
        total = sum(wheel.size for wheel in wheels)

        def report() -> None:
            if progress:
                progress("download", min(total, sum(self._received.get(wheel.sha256, 0) for wheel in wheels)), total)

        for wheel in wheels:
            self._listeners.setdefault(wheel.sha256, []).append(report)
        try:
            yield
        finally:
            for wheel in wheels:
                listeners = self._listeners[wheel.sha256]
                listeners.remove(report)
                if not listeners:
                    del self._listeners[wheel.sha256]
                    self._received.pop(wheel.sha256, None)

    def _advance(self, sha256: str, received: int) -> None:
        self._received[sha256] = received
        for report in self._listeners.get(sha256, ()):
            report()

    # ----------------------------------------------------------------------------------------------------- compiling

    async def _compile_batch(self, batch: Sequence[str], compiler: Compiler, tree: str) -> None:
        building = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="compile-", dir=self._building))
        try:
            outputs = [building / sha256 for sha256 in batch]
            for output in outputs:
                output.mkdir()
            await compiler([(self._wheels / sha256 / "site", output) for sha256, output in zip(batch, outputs, strict=True)])
            for sha256, output in zip(batch, outputs, strict=True):
                await asyncio.to_thread(self._publish_compiled, sha256, output, tree)
        finally:
            await asyncio.to_thread(shutil.rmtree, building, True)

    def _publish_compiled(self, sha256: str, output: Path, tree: str) -> None:
        folder = self._wheels / sha256
        whole = output.with_name(f"{output.name}-whole")
        link_tree(folder / "site", whole)
        _adopt(output, whole)
        about = {**vars(Counts.of(whole)), scrub.PYC_SUM: scrub.pyc_sum(whole)}
        _rename(whole, folder / tree)
        records.write(folder / f"{tree}.json", about)


def _adopt(output: Path, whole: Path) -> None:
    """Moves from the compiler's ``output`` to ``whole`` what belongs there: regular .pyc files beside their sources, nothing else.
    The compiler read untrusted files, so what it left is not trusted either."""
    for entry in list(_walk(output)):
        file = Path(entry.path)
        match = _PYC.fullmatch(file.name)
        place = whole / file.parent.relative_to(output)
        if match and file.parent.name == "__pycache__" and (place.parent / f"{match['module']}.py").is_file():
            place.mkdir(exist_ok=True)
            os.chown(file, os.geteuid(), os.getegid())
            file.chmod(0o644)
            os.replace(file, place / file.name)


async def _unpack(wheel: Path, directory: Path) -> None:
    """Raises BadWheel or OSError."""
    try:
        if wheel.stat().st_size < _OWN_PROCESS_BYTES:
            await asyncio.to_thread(unpack.unpack, wheel, directory)
            return
    except unpack.NotAWheel as error:
        raise BadWheel(f"{wheel.name} cannot be used: {error}") from None
    process = await asyncio.create_subprocess_exec(sys.executable, "-I", unpack.__file__, os.fspath(wheel), os.fspath(directory),
                                                   stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    try:
        output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        problem: dict[str, Any] | None = json.loads(output)
    except ValueError:
        raise BadWheel(f"{wheel.name} could not be unpacked: {errors.decode(errors='replace')[-300:].strip() or process.returncode}") from None
    if problem and problem["errno"]:
        raise OSError(problem["errno"], problem["error"])
    if problem:
        raise BadWheel(f"{wheel.name} cannot be used: {problem['error']}")


def _check_local(file: Path, wheel: Wheel) -> None:
    if not file.exists():
        raise IndexUnreachable(f"{file} is gone", "find-links directories must keep their files; check EPHEMERAL_FIND_LINKS")
    found = _sha256(file)
    if found != wheel.sha256:
        raise BadWheel(f"{file} has sha256 {found[:16]}…, the lock says {wheel.sha256[:16]}…", "it was replaced since the packages were resolved")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _counts(manifest: Path) -> Counts | None:
    try:
        data = records.read(manifest)
        return Counts(int(data["files"]), int(data["bytes"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _walk(directory: Path) -> Iterator[os.DirEntry[str]]:
    """Regular files below ``directory``; links are neither followed nor returned. A directory that is not there holds nothing."""
    try:
        entries = list(os.scandir(directory))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))
        elif entry.is_file(follow_symlinks=False):
            yield entry


def _rename(building: Path, place: Path) -> None:
    """Publishes a directory; one that another process published first is as good."""
    try:
        os.rename(building, place)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def _full(where: Path) -> StoreFull:
    return StoreFull(f"no space left for packages in {where.parent}")


def _sweep(*folders: Path) -> None:
    """Removes what processes that were killed have left; what is younger than a day may belong to one that runs."""
    for folder in folders:
        for entry in folder.iterdir():
            with contextlib.suppress(OSError):
                if time.time() - entry.stat().st_mtime > _ABANDONED_SECONDS:
                    shutil.rmtree(entry, ignore_errors=True)
