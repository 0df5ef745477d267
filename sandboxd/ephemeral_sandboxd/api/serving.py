"""Opening the doors: one application on a TCP port and on a Unix socket."""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from ephemeral_sandboxd.errors import Unavailable


@dataclass(frozen=True)
class Served:
    """A running server. `port` is the one bound, also when 0 was asked for."""

    runner: web.AppRunner
    socket: Path
    port: int

    async def close(self) -> None:
        """Stop listening, let requests in flight finish (a few seconds at most), remove the socket."""
        await self.runner.cleanup()
        self.socket.unlink(missing_ok=True)


async def serve(app: web.Application, socket: Path, port: int, host: str = "127.0.0.1") -> Served:
    """Serve `app` on `host`:`port` and on the Unix socket `socket` (mode 0600).

    Raises errors.Unavailable when the port is taken, or the socket is one that another process answers on.
    """
    # Nothing is logged a request: addresses may hold the token. Callers keep their connections: an execution may be
    # an hour after the one before.
    runner = web.AppRunner(app, access_log=None, handle_signals=False, keepalive_timeout=3600, shutdown_timeout=3)
    await runner.setup()
    try:
        await web.SockSite(runner, _listen(socket)).start()
        bound = _bind(host, port)
        await web.SockSite(runner, bound).start()
    except BaseException:
        await runner.cleanup()
        raise
    return Served(runner, socket, bound.getsockname()[1])


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
