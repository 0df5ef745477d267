"""Makes snapshots: a fresh sandbox that never ran anybody's code imports the modules and is checkpointed."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from ephemeral import wire
from ephemeral_sandboxd.environments.base import read_requirements
from ephemeral_sandboxd.errors import SandboxdError, Unavailable
from ephemeral_sandboxd.pool import rehearsals
from ephemeral_sandboxd.pool.admission import Declined
from ephemeral_sandboxd.pool.fleet import SPARE, Fleet
from ephemeral_sandboxd.pool.sandbox import image_of
from ephemeral_sandboxd.pool.stock import Stock
from ephemeral_sandboxd.pool.worth import CERTAIN
from ephemeral_sandboxd.runtimes import Gone, Runtime

log = logging.getLogger(__name__)

STDLIB = Path(__file__).parent.parent / "data" / "stdlib.txt"


def fingerprint(runtime: Runtime, root: Path) -> str:
    """All that a snapshot on the root filesystem ``root`` is only valid for: the runtime's own, and the programs of ours that ran before it was taken."""
    digest = hashlib.sha256(runtime.fingerprint(root).encode())
    for file in (STDLIB, *sorted(rehearsals.FOLDER.glob("*.py"))):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


class Photographer:
    """One snapshot at a time; the pool decides when."""

    def __init__(self, fleet: Fleet):
        self._fleet = fleet

    async def take(self, stock: Stock, modules: Sequence[str], environments: Sequence[str], firsts: Sequence[bool], *,
                   shared: bool = False, politely: bool = False) -> wire.Snapshot:
        """A snapshot of ``modules`` imported with ``environments`` mounted in this order (slot 0 first).

        ``politely`` leaves the CPU to everybody else, and takes memory from nobody (Declined). A module that cannot be imported is an
        error. Raises errors.Unavailable with the reason.
        """
        name = " ".join(modules) or "nothing imported"
        base = stock.base
        sandbox = await self._fleet.boot(stock, base=bool(base) and list(environments[:1]) == base, worth=SPARE if politely else CERTAIN)
        draft: Path | None = None
        try:
            draft = stock.snapshots.reserve(stock.snapshots.key(modules, environments), shared=shared)
            if politely:
                sandbox.box.yield_cpu()
            for environment, first in list(zip(environments, firsts, strict=True))[len(sandbox.mounted):]:
                sandbox.mount(environment, first=first)
            await sandbox.look()
            for module in read_requirements(STDLIB):
                await sandbox.preload(module)
            import_ms = 0.0
            for module in modules:
                import_ms += await sandbox.preload(module) + await sandbox.rehearse(module)
            if sandbox.broken:
                raise Unavailable("snapshot failed", f"importing {name}: {next(iter(sandbox.broken.values()))}", "see the package's requirements")
            await sandbox.settle()
            await sandbox.box.checkpoint(image_of(draft))
            return stock.snapshots.keep(draft, modules, environments, list(firsts), import_ms)
        except (Gone, OSError) as problem:
            raise Unavailable("snapshot failed", f"{name}: {problem}", "ephemeral doctor") from problem
        finally:
            self._fleet.give_back(sandbox)
            if draft:
                shutil.rmtree(draft, ignore_errors=True)

    async def take_if_missing(self, stock: Stock, modules: Sequence[str], environments: Sequence[str], firsts: Sequence[bool]) -> None:
        """For the background: what fails is logged, not raised."""
        if self._fleet.runtime.can_snapshot and not stock.snapshots.exact(modules, environments):
            try:
                await self.take(stock, modules, environments, firsts, politely=True)
            except (SandboxdError, Declined) as problem:
                log.warning("%s", problem)
