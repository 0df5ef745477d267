"""A session's grant, made true in its sandbox."""

from __future__ import annotations

from ephemeral_sandboxd.pool.network import Network
from ephemeral_sandboxd.pool.notes import Notes
from ephemeral_sandboxd.pool.sandbox import PooledSandbox
from ephemeral_sandboxd.pool.sessions import Session


async def connect(session: Session, sandbox: PooledSandbox, notes: Notes) -> None:
    """Make the sandbox's network what its session was granted: opened at its first use, after any restore; replaced when the grant changed.

    Raises runtimes.Gone.
    """
    if sandbox.network and sandbox.network.allow == session.network:
        return
    if sandbox.network is None and not session.network:
        return
    network = Network(sandbox.box, session.id, session.network, notes)
    if sandbox.network is None:
        await sandbox.box.open_network(network.receive)
    else:
        await sandbox.network.close()
        sandbox.box.on_network = network.receive
    sandbox.network = network
