"""Requirements to a lock: the exact wheels, by hash, that satisfy them. uv does the work; what it answered once is kept on disk.

    STORE/resolutions/<key>.json   what was answered; the key is a hash of all that decides
    STORE/uv/                      uv's cache: metadata of packages that were looked at
    STORE/uv.lock                  held by every run of uv, so that nobody clears its cache meanwhile
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import logging
import re
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ephemeral import names
from ephemeral_sandboxd.environments import locks, records
from ephemeral_sandboxd.environments.errors import IndexUnreachable, PackageRefused, StoreFull, Unresolvable
from ephemeral_sandboxd.environments.flights import Flights
from ephemeral_sandboxd.environments.index import Index, local_path, without_login
from ephemeral_sandboxd.environments.policy import Policy
from ephemeral_sandboxd.environments.relay import Relay
from ephemeral_sandboxd.errors import SandboxdError

log = logging.getLogger(__name__)

UV_CACHE, UV_LOCK, RESULTS = "uv", "uv.lock", "resolutions"
_TIMEOUT_SECONDS = 120
_FRESH_SECONDS = 7 * 86400
"""A kept resolution that is older is made anew, so that releases arrive; it still serves when the index cannot be reached."""
_UNRESOLVABLE_SECONDS = 60
_UNREACHABLE = re.compile(r"failed to fetch|request failed|error sending request|dns error|connect error|timed out|http status", re.IGNORECASE)
_FULL = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
_KNOWN = 500
"""So many kept resolutions stay in memory."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Wheel:
    """One file of a lock. ``url`` may be a ``file:`` address; ``size`` is in bytes, 0 when the index does not say."""

    name: str
    version: str
    filename: str
    url: str
    sha256: str
    size: int

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Wheel:
        """Raises ValueError, KeyError or TypeError when ``data`` cannot be a wheel: names of files are made of it."""
        wheel = cls(**data)
        if not all(isinstance(text, str) for text in (wheel.name, wheel.version, wheel.filename, wheel.url, wheel.sha256)) or not isinstance(wheel.size, int):
            raise TypeError("a wheel's fields are text and one number")
        if not _SHA256.fullmatch(wheel.sha256) or not wheel.filename.endswith(".whl") or "/" in wheel.filename:
            raise ValueError(f"{wheel.filename!r} is no wheel")
        return wheel


@dataclass(frozen=True)
class Lock:
    """An environment's exact content. ``on_base`` is the id of the base lock that it stands on: then ``wheels`` are only those that the
    base does not hold; None when it stands alone. The id depends on the content only, not on how it was asked for."""

    id: str
    python: str
    requested: tuple[str, ...]
    wheels: tuple[Wheel, ...]
    on_base: str | None = None

    @classmethod
    def of(cls, python: str, requested: Iterable[str], wheels: Iterable[Wheel], on_base: str | None = None) -> Lock:
        ordered = tuple(sorted(wheels, key=lambda wheel: wheel.name))
        content = [python, on_base, [[wheel.name, wheel.version, wheel.sha256] for wheel in ordered]]
        return cls(_digest(content)[:16], python, tuple(sorted(requested)), ordered, on_base)

    @cached_property
    def packages(self) -> dict[str, str]:
        """Name -> version."""
        return {wheel.name: wheel.version for wheel in self.wheels}

    def to_json(self) -> dict[str, Any]:
        return {"python": self.python, "requested": list(self.requested), "on_base": self.on_base, "wheels": [vars(wheel) for wheel in self.wheels]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Lock:
        """Raises ValueError, KeyError or TypeError when ``data`` is not what to_json made."""
        return cls.of(data["python"], data["requested"], (Wheel.from_json(wheel) for wheel in data["wheels"]), data["on_base"])


@dataclass(frozen=True)
class Resolution:
    lock: Lock
    cached: bool
    """Whether uv did not have to run."""


class Resolver:
    """Resolves against ``index``; keeps results and uv's cache below ``store``."""

    def __init__(self, store: Path, index: Index, policy: Policy | None = None) -> None:
        """Raises BadRequest when ``policy`` has private names and ``index`` does not say where the others come from."""
        self._index = index
        self._policy = policy or Policy()
        self._relay = Relay(index, self._policy) if self._policy.private else None
        self._results = store / RESULTS
        self._uv_cache = store / UV_CACHE
        self._uv_lock = store / UV_LOCK
        self._flights: Flights[Resolution] = Flights()
        self._known: dict[str, tuple[tuple[int, int], Lock]] = {}
        """Kept resolutions that were read already, with the time and size of their file."""
        self._refused: dict[str, tuple[float, SandboxdError]] = {}
        self._processes = asyncio.Semaphore(2)

    async def resolve(self, requirements: Sequence[str], base: Lock | None = None) -> Resolution:
        """The lock for ``requirements`` (lines that policy admitted) on top of ``base``; alone when that conflicts, or without a base.

        Raises Unresolvable, PackageRefused (a dependency is denied, private, or too young), StoreFull, or IndexUnreachable when the answer is
        not known from before. Equal requests at the same time share one run.
        """
        requested = sorted(requirements)
        key = self._key(requested, base)
        kept = self._kept(key)
        if kept and time.time() - kept[1] < _FRESH_SECONDS:
            return Resolution(kept[0], cached=True)
        failed = self._refused.get(key)
        if failed and time.monotonic() - failed[0] < _UNRESOLVABLE_SECONDS:
            raise failed[1].with_traceback(None)
        try:
            return await self._flights.join(key, lambda: self._resolve(key, requested, base))
        except IndexUnreachable:
            if kept:
                return Resolution(kept[0], cached=True)
            raise
        except (Unresolvable, PackageRefused) as problem:
            self._refused = {known: failure for known, failure in self._refused.items() if time.monotonic() - failure[0] < _UNRESOLVABLE_SECONDS}
            self._refused[key] = (time.monotonic(), problem)
            raise

    def known(self, requirements: Sequence[str]) -> Lock | None:
        """What ``requirements`` alone resolved to when they last were, however long ago."""
        kept = self._kept(self._key(sorted(requirements), None))
        return kept[0] if kept else None

    async def uv(self, cache: Path) -> tuple[list[str], dict[str, str]]:
        """Arguments and environment for a uv that somebody else runs by the same rules, with its cache in the directory ``cache``."""
        index = await self._relay.index() if self._relay else self._index
        return index.arguments, index.environment(cache)

    async def close(self) -> None:
        await self._flights.close()
        if self._relay:
            await self._relay.close()

    async def _resolve(self, key: str, requested: list[str], base: Lock | None) -> Resolution:
        try:
            if base is None:
                lock = Lock.of(self._index.target.python, requested, await self._compile(requested))
            else:
                lock = await self._on_base(requested, base)
            await asyncio.to_thread(records.write, self._results / f"{key}.json", lock.to_json())
        except Unresolvable as problem:
            raise await self._explained(problem, requested) from None
        except OSError as problem:
            raise (_full(self._results) if problem.errno in (errno.ENOSPC, errno.EDQUOT) else problem) from None
        return Resolution(lock, cached=False)

    async def _explained(self, problem: Unresolvable, requested: list[str]) -> SandboxdError:
        """The rule of ours that makes ``requested`` unresolvable, or ``problem`` itself."""
        for name in self._policy.deny if self._relay else ():  # which said that there is no such package
            if re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", problem.detail):
                return PackageRefused("deny", f"{name}, which {' '.join(requested)} needs, is denied by the operator", f"to lift that, take {name} out of EPHEMERAL_DENY")
        days = self._index.minimum_age_days
        if days:
            try:
                wheels = await self._compile(requested, index=replace(self._index, minimum_age_days=0))
            except SandboxdError:
                return problem
            young = [f"{wheel.name} {wheel.version}" for wheel in wheels if f"{wheel.name}" in problem.detail] or requested
            return PackageRefused("age", f"{', '.join(young)} is younger than {days} days, or the index does not say how old",
                                  "wait, ask for an older version, or lower EPHEMERAL_MINIMUM_AGE_DAYS")
        return problem

    async def _on_base(self, requested: list[str], base: Lock) -> Lock:
        held = base.packages
        # A dependency that only differs from what the base holds in its build (opencv-python) would shadow it: leave it out.
        twins = {twin for name in held for twin in names.equivalents(name)} - set(held) - {re.split("==", line)[0] for line in requested}
        try:
            wheels = await self._compile(requested, [f"{name}=={version}" for name, version in held.items()], sorted(twins))
        except Unresolvable as conflict:
            try:
                return Lock.of(base.python, requested, await self._compile(requested))
            except Unresolvable as alone:
                raise alone from conflict
        return Lock.of(base.python, requested, (wheel for wheel in wheels if held.get(wheel.name) != wheel.version), base.id)

    async def _compile(self, requirements: Sequence[str], constraints: Sequence[str] = (), excludes: Sequence[str] = (),
                       index: Index | None = None) -> list[Wheel]:
        """One run of uv, against ``index`` instead of the configured one."""
        index = index or self._index
        if self._relay:
            index = await self._relay.index(index)
        self._uv_lock.parent.mkdir(parents=True, exist_ok=True)
        running = await asyncio.to_thread(locks.take, self._uv_lock)
        try:
            return await self._run_uv(index, requirements, constraints, excludes)
        finally:
            locks.give_back([running])

    async def _run_uv(self, index: Index, requirements: Sequence[str], constraints: Sequence[str], excludes: Sequence[str]) -> list[Wheel]:
        environment = index.environment(self._uv_cache)
        with tempfile.TemporaryDirectory(prefix="resolve-", dir=self._uv_cache) as folder:
            for variable, lines in (("UV_CONSTRAINT", constraints), ("UV_EXCLUDE", excludes)):
                if lines:
                    file = Path(folder) / variable.lower()
                    file.write_text("".join(f"{line}\n" for line in lines))
                    environment[variable] = f"{environment.get(variable, '')} {file}".strip()
            status, output, errors = await self._run(
                [index.uv, "pip", "compile", *index.arguments, "--no-python-downloads", "--python", sys.executable, "--quiet",
                 "--format", "pylock.toml", "--no-header", "--no-annotate", "-"],
                "".join(f"{line}\n" for line in requirements).encode(), environment)
        if status != 0:
            if _FULL.search(errors):
                raise _full(self._uv_cache)
            reason = _reason(self._relay.anonymous(errors) if self._relay else errors)
            if status != 1 and _UNREACHABLE.search(errors):
                raise IndexUnreachable(reason)
            raise Unresolvable(reason)
        return self._wheels(output)

    async def _run(self, command: list[str], text: bytes, environment: dict[str, str]) -> tuple[int, str, str]:
        async with self._processes:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment, cwd="/")
            try:
                async with asyncio.timeout(_TIMEOUT_SECONDS):
                    output, errors = await process.communicate(text)
            except TimeoutError:
                raise IndexUnreachable(f"no answer within {_TIMEOUT_SECONDS} s") from None
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        return process.returncode or 0, output.decode(errors="replace"), errors.decode(errors="replace")

    def _wheels(self, pylock: str) -> list[Wheel]:
        try:
            packages = tomllib.loads(pylock).get("packages", [])
        except tomllib.TOMLDecodeError as error:
            raise Unresolvable(f"uv's lock cannot be read: {error}") from None
        return [self._best(package) for package in packages]

    def _best(self, package: dict[str, Any]) -> Wheel:
        """The file of a locked package that suits the sandbox most."""
        name = names.normalize(package["name"])
        candidates = []
        elsewhere = False
        for wheel in package.get("wheels", ()):
            url = without_login(wheel.get("url") or Path(wheel["path"]).absolute().as_uri())
            if self._relay:
                url = self._relay.origin(url)
                if self._policy.is_private(name) and not self._relay.of_private_index(name, url):
                    elsewhere = True  # a find-links page, which uv looks at for all names
                    continue
            filename = unquote(urlsplit(url).path).rpartition("/")[2]
            place = self._index.target.preference(filename)
            sha256 = wheel.get("hashes", {}).get("sha256", "")
            if place is not None and sha256:
                size = int(wheel.get("size", 0)) or _local_size(url)
                candidates.append((place, filename, Wheel(name, str(package.get("version", "")), filename, url, sha256, size)))
        if not candidates and elsewhere:
            raise PackageRefused("private", f"{name} is private, and what was found of it is not in the private index",
                                 "put it there, or out of EPHEMERAL_FIND_LINKS")
        if not candidates:
            raise Unresolvable(f"{name} {package.get('version', '')} has no wheel with a sha256 for Python {self._index.target.python}",
                               "only wheels are used, never source distributions: these run their author's code at installation")
        return min(candidates)[2]

    def _key(self, requested: list[str], base: Lock | None) -> str:
        return _digest([requested, base.id if base else None, self._index.key()])

    def _kept(self, key: str) -> tuple[Lock, float] | None:
        """A kept resolution and when it was made (wall clock)."""
        file = self._results / f"{key}.json"
        try:
            about = file.stat()
            stamp = (about.st_mtime_ns, about.st_size)
            known = self._known.get(key)
            if known is None or known[0] != stamp:
                while len(self._known) >= _KNOWN:
                    self._known.pop(next(iter(self._known)))
                known = self._known[key] = (stamp, Lock.from_json(records.read(file)))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as problem:
            log.warning("a kept resolution cannot be read and is made anew: %s: %s", file, problem)
            return None
        return known[1], about.st_mtime


def _local_size(url: str) -> int:
    file = local_path(url)
    return file.stat().st_size if file and file.is_file() else 0


def _reason(errors: str) -> str:
    """uv's complaint as one line: without its drawing, its hints and what everybody knows already."""
    text = errors.partition("\nhint:")[0]
    text = re.sub(r"(?m)^\s*(error:|cause:|×|╰─▶|├─▶|│|  )\s*", " ", text)
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"^No solution found when resolving dependencies:?\s*", "", text)
    text = text.replace("we can conclude that your requirements are unsatisfiable", "there is no solution")
    return text[:600] or "uv gave no reason"


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _full(where: Path) -> StoreFull:
    return StoreFull(f"no space left to resolve packages in {where.parent}")
