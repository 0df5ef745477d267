"""The daemon's process: the parts put together in order, served on a Unix socket, a TCP port and maybe to other machines, until SIGTERM."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from ephemeral import settings
from ephemeral.tasks import Tasks
from ephemeral_sandboxd import host, notify
from ephemeral_sandboxd.api import build, serve
from ephemeral_sandboxd.api.remote import Gate
from ephemeral_sandboxd.daemon import Daemon
from ephemeral_sandboxd.ledger import Recorder

DASHBOARD = Path(__file__).parent / "dashboard"


async def run(kind: str) -> None:
    """Put the parts together in order, serve, take them apart in reverse. Raises SandboxdError when it cannot start."""
    state, store = settings.get("state"), settings.get("store")
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)

    listen = settings.get("listen")
    gate = Gate(state) if listen else None
    lock = host.take(state)
    recorder = Recorder(state / "ephemeral.db", capture=settings.get("capture"))
    try:
        runtime = host.runtime(kind, store, state)
        daemon = Daemon(state, store, runtime, recorder, host.finder(store, state, runtime))
        await daemon.start()
        try:
            app = build(daemon, recorder, token=settings.token(), dashboard=DASHBOARD)
            served = await serve(app, settings.sandboxd_socket(), settings.get("sandboxd_port"), listen=listen, gate=gate)
            tasks = Tasks()
            tasks.start(notify.watchdog(), "watchdog")
            notify.tell("READY=1")
            await stop.wait()
            notify.tell("STOPPING=1")
            await served.close()
            await tasks.cancel()
        finally:
            await daemon.close()
    finally:
        await recorder.close()
        host.release(lock)
