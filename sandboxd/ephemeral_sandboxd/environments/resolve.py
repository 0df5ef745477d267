"""Requirements to a lock: the exact wheels, by hash, that satisfy them. uv does the work; what it answered once is kept on disk."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ephemeral import names
from ephemeral_sandboxd.environments.errors import IndexUnreachable, Unresolvable
from ephemeral_sandboxd.environments.flights import Flights
from ephemeral_sandboxd.environments.index import Index, local_path
from ephemeral_sandboxd.environments.relay import Relay

_TIMEOUT_SECONDS = 120
_FRESH_SECONDS = 7 * 86400
"""A kept resolution that is older is made anew, so that releases arrive; it still serves when the index cannot be reached."""
_UNRESOLVABLE_SECONDS = 60
_UNREACHABLE = re.compile(r"failed to fetch|request failed|error sending request|dns error|connect error|timed out|http status", re.IGNORECASE)


@dataclass(frozen=True)
class Wheel:
    """One file of a lock. ``url`` may be a ``file:`` address; ``size`` is in bytes, 0 when the index does not say."""

    name: str
    version: str
    filename: str
    url: str
    sha256: str
    size: int


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

    @property
    def packages(self) -> dict[str, str]:
        """Name -> version."""
        return {wheel.name: wheel.version for wheel in self.wheels}

    def to_json(self) -> dict[str, Any]:
        return {"python": self.python, "requested": list(self.requested), "on_base": self.on_base, "wheels": [vars(wheel) for wheel in self.wheels]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Lock:
        """Raises KeyError or TypeError when ``data`` is not what to_json made."""
        return cls.of(data["python"], data["requested"], (Wheel(**wheel) for wheel in data["wheels"]), data["on_base"])


@dataclass(frozen=True)
class Resolution:
    lock: Lock
    cached: bool
    """Whether uv did not have to run."""


class Resolver:
    """Resolves against ``index``; keeps results and uv's cache below ``store``."""

    def __init__(self, store: Path, index: Index, relay: Relay | None = None) -> None:
        """``relay``: the index that uv is to know, where there are private names."""
        self._index = index
        self._relay = relay
        self._results = store / "resolutions"
        self._uv_cache = store / "uv"
        self._flights: Flights[Resolution] = Flights()
        self._unresolvable: dict[str, tuple[float, Unresolvable]] = {}
        self._processes = asyncio.Semaphore(2)

    async def resolve(self, requirements: Sequence[str], base: Lock | None = None) -> Resolution:
        """The lock for ``requirements`` (lines that policy admitted) on top of ``base``; alone when that conflicts, or without a base.

        Raises Unresolvable, or IndexUnreachable when the answer is not known from before. Equal requests at the same time share one run.
        """
        requested = sorted(requirements)
        key = _digest([requested, base.id if base else None, self._index.key()])
        kept = self._kept(key)
        if kept and time.time() - kept[1] < _FRESH_SECONDS:
            return Resolution(kept[0], cached=True)
        failed = self._unresolvable.get(key)
        if failed and time.monotonic() - failed[0] < _UNRESOLVABLE_SECONDS:
            raise failed[1].with_traceback(None)
        try:
            return await self._flights.join(key, lambda: self._resolve(key, requested, base))
        except IndexUnreachable:
            if kept:
                return Resolution(kept[0], cached=True)
            raise
        except Unresolvable as problem:
            self._unresolvable[key] = (time.monotonic(), problem)
            raise

    async def close(self) -> None:
        await self._flights.close()
        if self._relay:
            await self._relay.close()

    async def _resolve(self, key: str, requested: list[str], base: Lock | None) -> Resolution:
        if base is None:
            lock = Lock.of(self._index.target.python, requested, await self._compile(requested))
        else:
            lock = await self._on_base(requested, base)
        await asyncio.to_thread(_write, self._results / f"{key}.json", lock.to_json())
        return Resolution(lock, cached=False)

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

    async def _compile(self, requirements: Sequence[str], constraints: Sequence[str] = (), excludes: Sequence[str] = ()) -> list[Wheel]:
        """One run of uv."""
        if self._relay:
            await self._relay.start()
        environment = self._index.environment(self._uv_cache, self._relay.url if self._relay else "")
        with tempfile.TemporaryDirectory(prefix="resolve-", dir=self._uv_cache) as folder:
            for variable, lines in (("UV_CONSTRAINT", constraints), ("UV_EXCLUDE", excludes)):
                if lines:
                    file = Path(folder) / variable.lower()
                    file.write_text("".join(f"{line}\n" for line in lines))
                    environment[variable] = f"{environment.get(variable, '')} {file}".strip()
            status, output, errors = await self._run(
                [self._index.uv, "pip", "compile", *self._index.arguments, "--no-python-downloads", "--python", sys.executable, "--quiet",
                 "--format", "pylock.toml", "--no-header", "--no-annotate", "-"],
                "".join(f"{line}\n" for line in requirements).encode(), environment)
        if status != 0:
            reason = _reason(errors)
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
        for wheel in package.get("wheels", ()):
            url = Relay.original(wheel["url"]) if wheel.get("url") else Path(wheel["path"]).absolute().as_uri()
            filename = unquote(urlsplit(url).path).rpartition("/")[2]
            place = self._index.target.preference(filename)
            sha256 = wheel.get("hashes", {}).get("sha256", "")
            if place is not None and sha256:
                size = int(wheel.get("size", 0)) or _local_size(url)
                candidates.append((place, filename, Wheel(name, str(package.get("version", "")), filename, url, sha256, size)))
        if not candidates:
            raise Unresolvable(f"{name} {package.get('version', '')} has no wheel with a sha256 for Python {self._index.target.python}",
                               "only wheels are used, never source distributions: these run their author's code at installation")
        return min(candidates)[2]

    def _kept(self, key: str) -> tuple[Lock, float] | None:
        """A kept resolution and when it was made (wall clock)."""
        file = self._results / f"{key}.json"
        try:
            return Lock.from_json(json.loads(file.read_bytes())), file.stat().st_mtime
        except (OSError, ValueError, KeyError, TypeError):
            return None


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


def _write(file: Path, data: object) -> None:
    """Whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    building = file.with_name(f"{file.name}.{os.getpid()}")
    building.write_text(json.dumps(data))
    os.replace(building, file)
