"""Opening the doors: one application on a TCP port of this machine, on a Unix socket, and where so set to other machines over TLS."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from ephemeral_sandboxd.api.remote import GATE, Door, Gate
from ephemeral_sandboxd.errors import Refused, Unavailable


@dataclass(frozen=True)
class Served:
    """A running server. `port` is the one bound, also when 0 was asked for; so is the door's."""

    runner: web.AppRunner
    socket: Path
    port: int
    door: Door | None = None

    async def close(self) -> None:
        """Stop listening, let requests in flight finish (a few seconds at most), remove the socket."""
        if self.door is not None:
            await self.door.close()
        await self.runner.cleanup()
        self.socket.unlink(missing_ok=True)


async def serve(
    app: web.Application, socket: Path, port: int, host: str = "127.0.0.1", *, listen: str = "", gate: Gate | None = None
) -> Served:
    """Serve `app` on `host`:`port`, a loopback address, and on the Unix socket `socket` (mode 0600). With a `gate` also at `listen`
    (`host:port`), for those whom the gate lets in.

    Raises errors.Unavailable when a port is taken, or the socket is one that another process answers on; errors.Refused for a plain
    port on any other address.
    """
    if not _is_loopback(host) or (listen and gate is None):
        raise Refused(
            "Not without TLS", f"{listen or host} can be reached from other machines.",
            "Other machines come in over TLS with client certificates only: ephemeral host certify, then EPHEMERAL_LISTEN=[::]:8790.",
        )  # fmt: skip
    if gate is not None:
        app[GATE] = gate
    # Nothing is logged a request: addresses may hold the token. Callers keep their connections: an execution may be
    # an hour after the one before.
    runner = web.AppRunner(app, access_log=None, handle_signals=False, keepalive_timeout=3600, shutdown_timeout=3)
    await runner.setup()
    door = None
    try:
        await web.SockSite(runner, _listen(socket)).start()
        bound = _bind(host, port)
        await web.SockSite(runner, bound).start()
        if gate is not None:
            door = Door(listen, gate, runner)
            door.open()
    except BaseException:
        await runner.cleanup()
        raise
    return Served(runner, socket, bound.getsockname()[1], door)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(path: Path) -> socket.socket:
    if path.exists() and _answers(path):
        raise Unavailable(
            "Another sandboxd is running", f"Something answers on {path}.", "Stop it first, or set another EPHEMERAL_STATE."
        )
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)  # never for a moment open to others
    try:
        listener.bind(str(path))
    except OSError as problem:
        listener.close()
        raise Unavailable(
            "The Unix socket cannot be made", f"{path}: {problem.strerror or problem}.",
            "Choose a shorter or writable EPHEMERAL_STATE.",
        ) from problem  # fmt: skip
    finally:
        os.umask(before)
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def _bind(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as problem:
        listener.close()
        taken = problem.errno == errno.EADDRINUSE
        raise Unavailable(
            f"Port {port} is taken" if taken else f"Port {port} cannot be used",
            f"{host}:{port}: {problem.strerror or problem}.",
            f"Find who has it (ss -ltnp 'sport = :{port}'), or set EPHEMERAL_SANDBOXD_PORT to another.",
        ) from problem
    return listener
