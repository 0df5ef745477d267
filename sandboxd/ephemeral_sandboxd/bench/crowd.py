"""A whole daemon, and many sessions."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from ephemeral import wire
from ephemeral_sandboxd import host
from ephemeral_sandboxd.bench.figures import Figures
from ephemeral_sandboxd.bench.memory import tree_pss_mb
from ephemeral_sandboxd.bench.place import DAEMON, Place
from ephemeral_sandboxd.daemon import TICK_SECONDS, Daemon
from ephemeral_sandboxd.errors import SandboxdError
from ephemeral_sandboxd.ledger import Recorder

BURST = 100
SESSIONS = 2000


async def crowds(place: Place, figures: Figures) -> None:
    """burst100_ms, sessions2000_mb: a daemon each, so that the one has nothing of the other's. The burst comes before a daemon's first
    quiet moment, which it would use to check the whole store."""
    await place.image("bare")  # the daemons find it in the state directory, where the store has none
    if figures.wanted("burst100_ms"):
        place.progress(f"a burst of {BURST}", 0, 1)
        async with _daemon(place) as daemon:
            served = [took for took in await asyncio.gather(*(_serve(daemon, number) for number in range(BURST))) if took is not None]
        figures.add("burst100_ms", served, failed=BURST - len(served))
    if figures.wanted("sessions2000_mb"):
        place.progress(f"{SESSIONS} that are idle", 0, 1)
        async with _daemon(place) as daemon:
            figures.add("sessions2000_mb", [await _register(daemon)], sandboxes=len(daemon.sandboxes()))


async def _register(daemon: Daemon) -> float:
    """Memory in MB while the sessions are there."""
    for number in range(SESSIONS):
        daemon.open_session(wire.SessionRequest(id=f"idle-{number}", app="bench"))
    await asyncio.sleep(2 * TICK_SECONDS)  # housekeeping looks at each of them
    return await asyncio.to_thread(tree_pss_mb)


async def _serve(daemon: Daemon, number: int) -> float | None:
    """Milliseconds until a new session's first result; None when it was refused or wrong."""
    began = time.perf_counter()
    try:
        execution = await daemon.execute(wire.ExecutionRequest(code="1+1", session=f"burst-{number}"), began)
    except SandboxdError:
        return None
    return (time.perf_counter() - began) * 1000 if execution.result == "2" else None


@contextlib.asynccontextmanager
async def _daemon(place: Place) -> AsyncIterator[Daemon]:
    """On a state directory below the place's, with the place's snapshots."""
    state = place.state / DAEMON
    state.mkdir(mode=0o700, exist_ok=True)
    learned, shown = place.state / "snapshots", state / "snapshots"
    if learned.is_dir() and not shown.is_symlink():
        shown.symlink_to(learned)
    runtime = host.runtime("gvisor", place.store, state)
    recorder = Recorder(state / "ephemeral.db", capture=False)
    daemon = Daemon(state, place.store, runtime, recorder, host.finder(place.store, state, runtime))
    try:
        await daemon.start()
        try:
            yield daemon
        finally:
            await daemon.close()
    finally:
        await recorder.close()
