"""What the same code costs without us, measured by the same clocks: policies ``none``, ``cached`` and ``fat-snapshot``.

``none`` (cold): a sandbox booted now, ``uv pip install`` with an empty cache, import, run. ``cached``: the same with a
warm cache. ``fat-snapshot``: the twenty most used packages already imported, restored when the session starts, with no
prediction at all.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import replace
from pathlib import Path

from ephemeral import settings
from ephemeral.tasks import Tasks
from ephemeral_sandboxd.commands import run
from ephemeral_sandboxd.environments.base import read_requirements
from ephemeral_sandboxd.environments.index import Index
from ephemeral_sandboxd.environments.target import Target
from ephemeral_sandboxd.errors import Refused, Unavailable
from ephemeral_sandboxd.pool import needs
from ephemeral_sandboxd.pool.fleet import Fleet
from ephemeral_sandboxd.pool.installed import Installed
from ephemeral_sandboxd.pool.photographer import Photographer
from ephemeral_sandboxd.pool.sandbox import PooledSandbox
from ephemeral_sandboxd.pool.stock import Stock
from ephemeral_sandboxd.runtimes.spec import SLOT_COUNT, SLOTS

FAT = Path(__file__).parent.parent / "data" / "fat.txt"
INSTALL_TIMEOUT_SECONDS = 300
LOOK_SECONDS = 0.25


class Rivals:
    """``folder`` is on the store's file system, so that uv can hard-link from its cache, as it would for its users."""

    def __init__(self, fleet: Fleet, stock: Stock, photographer: Photographer, folder: Path):
        self._fleet = fleet
        self._stock = stock
        self._photographer = photographer
        self._folder = folder
        self._installed = Installed(folder)
        self._tasks = Tasks()
        index = Index.configured(Target(stock.environments.python))
        self._index = replace(index, excludes=(*index.excludes, *settings.get("deny").split()))
        self._making_fat = asyncio.Lock()

    async def fresh(self) -> PooledSandbox:
        """A sandbox booted now, with nothing mounted."""
        return await self._fleet.boot(self._stock, base=False)

    async def install(self, sandbox: PooledSandbox, packages: list[str], *, cached: bool) -> dict[str, float]:
        """Install with uv as its users do and put it under the sandbox. Returns the stages' milliseconds."""
        if self._index.private_url:
            raise Refused("not with a private index", "what is compared with us asks one index for every name, private ones too", "use the policy `ours`")
        mine = self._installed.folder()
        cache = self._folder / "cache" if cached else mine / f"cache-{secrets.token_hex(4)}"
        if cached:
            await self._uv(packages, cache, mine / f"warm-{secrets.token_hex(4)}")
        else:
            self._tasks.start(self._emptied(sandbox, cache), f"empty {cache.name}")
        target = sandbox.box.directory / "rival"
        began = time.perf_counter()
        await self._uv(packages, cache, target)
        sandbox.box.mount(SLOT_COUNT - 1, target)
        await sandbox.box.request("mount", slots=[f"{SLOTS}/{SLOT_COUNT - 1}"], first=[])
        took = (time.perf_counter() - began) * 1000
        return {"download_ms": took}

    async def _uv(self, packages: list[str], cache: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        status, out = await run(
            self._index.uv, "pip", "install", *self._index.arguments, "--target", str(target), "--", *packages,
            env=self._index.environment(cache), timeout=INSTALL_TIMEOUT_SECONDS)
        if status:
            raise Unavailable("install failed", f"uv pip install {' '.join(packages)}: {out[-300:]}", "check the index")

    async def _emptied(self, sandbox: PooledSandbox, cache: Path) -> None:
        """Once ``sandbox``, whose packages are the very files of ``cache``, is gone: give their bytes back."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if sandbox.box.deleted:
                return await self._installed.empty(cache)

    async def close(self) -> None:
        """Delete what was installed, as much as there is time for; the next daemon does the rest. Call it when every sandbox is gone."""
        await self._tasks.cancel()
        await self._installed.close()

    async def fat(self) -> PooledSandbox:
        """The fat snapshot, restored; made when it does not exist yet (minutes, not part of anybody's figures)."""
        modules = needs.canonical(read_requirements(FAT))
        environments = self._stock.base
        async with self._making_fat:
            snapshot = self._stock.snapshots.exact(modules, environments)
            if snapshot is None:
                snapshot = await self._photographer.take(self._stock, modules, environments, [False] * len(environments), shared=True)
        return await self._fleet.restore(self._stock, snapshot)
