"""The base environment and the first snapshots: what `ephemeral setup` has sandboxd make, once per store."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ephemeral import names, settings
from ephemeral_sandboxd import host, roots
from ephemeral_sandboxd.daemon import Daemon
from ephemeral_sandboxd.environments.base import read_requirements
from ephemeral_sandboxd.ledger import Recorder
from ephemeral_sandboxd.pool import needs
from ephemeral_sandboxd.pool.photographer import fingerprint
from ephemeral_sandboxd.pool.rivals import FAT
from ephemeral_sandboxd.pool.snapshots import Snapshots, clear_out
from ephemeral_sandboxd.pool.stock import DEFAULT

AHEAD = Path(__file__).parent / "data" / "ahead.txt"


def report(what: str, done: int, total: int) -> None:
    sys.stdout.write(json.dumps({"what": what, "done": done, "total": total}) + "\n")
    sys.stdout.flush()


async def make(state: Path, store: Path) -> None:
    """Make what is missing; next to nothing when all is there. Raises SandboxdError."""
    runtime = host.runtime("gvisor", store, state)
    await runtime.check()
    find = host.finder(store, state, runtime)
    root, environments = find(DEFAULT)
    if environments.base_is_current() and environments.base:
        kept = Snapshots(fingerprint(runtime, root.path), store / "snapshots", state / "snapshots", lambda _: None)
        if all(kept.exact(modules, [environments.base.id]) for modules in ahead(set(environments.base.packages))):
            return
    lock = host.take(state)
    recorder = Recorder(state / "ephemeral.db", capture=settings.get("capture"))
    try:
        clear_out([store / "snapshots", state / "snapshots"], [fingerprint(runtime, root.path) for root in roots.roots(store).values()])
        base = await environments.make_base(report)
        daemon = Daemon(state, store, runtime, recorder, lambda name: (root, environments) if name == DEFAULT else find(name))
        await daemon.start()
        try:
            sets = ahead(set(base.packages))
            for number, modules in enumerate(sets):
                report(f"snapshot: {' '.join(modules) or 'bare'}", number, len(sets))
                await daemon.photograph_ahead([modules])
            report("snapshots", len(sets), len(sets))
        finally:
            await daemon.close()
    finally:
        await recorder.close()
        host.release(lock)


def ahead(packages: set[str]) -> list[list[str]]:
    """The bare one, and the sets of data/ahead.txt whose packages the base environment holds, the twenty of the fat one among them."""

    def held(module: str) -> bool:
        package = names.package_for(module.partition(".")[0])
        return package is not None and names.normalize(package) in packages

    lines = [needs.canonical(line.split()) for line in read_requirements(AHEAD)] + [needs.canonical(read_requirements(FAT))]
    return [[], *(modules for modules in lines if all(held(module) for module in modules))]
