"""A worker: a process that carries traffic. mitmproxy's connection handling on an event loop, and nothing that waits for us."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import struct
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mitmproxy import ctx
from mitmproxy.connection import Connection
from mitmproxy.options import Options
from mitmproxy.proxy import commands, layer, mode_specs
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.server import LiveConnectionHandler
from mitmproxy.utils import asyncio_utils

from ephemeral.providers import Provider
from ephemeral_certs.errors import CertsError
from ephemeral_certs.interception import Interception
from ephemeral_proxy.copies.sending import Copies
from ephemeral_proxy.counters import Counters, Row
from ephemeral_proxy.front import Closed, Plain, Tunnel
from ephemeral_proxy.http2 import Flows
from ephemeral_proxy.loop import Loop
from ephemeral_proxy.ports import BACKLOG
from ephemeral_proxy.routing import ByPath
from ephemeral_proxy.tls import Tls

log = logging.getLogger("ephemeral.proxy")

DRAIN_SECONDS = 0.7
"""What open requests get to finish once the process is told to stop. The whole stop stays below a second."""

IDLE_SECONDS = 24 * 3600
"""A connection without a byte for this long is closed. Models think for many minutes; clients have their own timeouts."""

HELD_BYTES = 1 << 20
"""What is kept for one side of a connection that does not take it, before nothing more is read from the other."""
_HELD_SECONDS = 0.01  # between two looks at whether it has been taken

Top = Callable[[Context], layer.Layer]
Hooks = Mapping[str, Sequence[Callable[..., None]]]


@dataclass(frozen=True)
class Port:
    """A listening socket and what it is for: ``proxy``, ``intercept``, or the name of a provider."""

    name: str
    socket: socket.socket


@dataclass(frozen=True)
class House:
    """What all workers have in common."""

    ports: Sequence[Port]
    providers: Mapping[str, Provider]
    authority: Path
    """Directory of the authority for interception; used where there is a port for it."""
    counters: Counters
    workers: int


def run(house: House, connection: socket.socket, row: Row) -> None:
    """The process: serve until SIGTERM. ``connection`` leads to the reader."""
    gc.freeze()  # what was loaded before the fork is shared, and never looked at again
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(_Worker(house, connection, row).serve())


class _Worker:
    def __init__(self, house: House, connection: socket.socket, row: Row) -> None:
        self._house = house
        self._connection = connection
        self._row = row
        self._open: set[_Connection] = set()
        self._interception: Interception | None = None

    async def serve(self) -> None:
        asyncio.get_running_loop().set_exception_handler(self._unexpected)
        self._beat()
        copies = Copies(self._connection, self._row)
        self._interception = self._open_authority()
        tls = Tls(self._interception)
        options = _options(tls)
        hooks = _hooks(tls, Flows(copies, self._row))
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        servers = []
        with asyncio_utils.set_eager_task_factory():
            for port in self._house.ports:
                # Only mitmproxy's HTTP/2 asks for the mode; where a reverse one would lead is decided by us for each request.
                mode = mode_specs.ProxyMode.parse("regular" if port.name == "intercept" else "reverse:http://127.0.0.1:1")
                accept = self._accept(options, hooks, mode, self._top(port, copies))
                servers.append(await asyncio.start_server(accept, sock=port.socket, backlog=BACKLOG))
            await stop.wait()
            for server in servers:
                server.close()
            await self._drain()
            copies.flush()

    def _beat(self) -> None:
        """Show the parent, every second, that the event loop turns."""
        self._row.alive_at = int(time.monotonic())
        asyncio.get_running_loop().call_later(1.0, self._beat)

    def _open_authority(self) -> Interception | None:
        """The authority for interception. Here and not in the parent: the reader, which is fed by strangers, has no use for it.
        One that is damaged keeps that port shut, and nothing else."""
        if not any(port.name == "intercept" for port in self._house.ports):
            return None
        try:
            return Interception.open(self._house.authority)
        except CertsError as error:
            log.error("programs that only know HTTPS_PROXY are not served: %s %s", error, error.hint)
            return None

    def _top(self, port: Port, copies: Copies) -> Top:
        """The first layer of a connection that comes in on ``port``."""
        providers, interception = self._house.providers, self._interception
        if port.name == "intercept":
            if interception is None:
                return Closed
            return lambda context: Tunnel(context, providers, interception, copies, self._row)
        routes = ByPath(providers, self.health, providers.get(port.name))
        return lambda context: Plain(context, routes, copies, self._row)

    def _accept(self, options: Options, hooks: Hooks, mode: mode_specs.ProxyMode, top: Top) -> Callable[[Any, Any], Any]:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._row.connections += 1
            handler = _Connection(reader, writer, options, mode, hooks, top, self._row)
            self._open.add(handler)
            try:
                await handler.handle_client()
            finally:
                self._open.discard(handler)

        return accept

    async def _drain(self) -> None:
        """Let what is under way finish, for a moment."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while any(handler.busy for handler in self._open) and time.monotonic() < deadline:  # noqa: ASYNC110 (layers tell nobody)
            await asyncio.sleep(0.02)

    def health(self) -> dict[str, Any]:
        """What ``/healthz`` says; the counters are of all processes, since the proxy's start."""
        return {
            "status": "ok",
            "providers": {name: one.url for name, one in self._house.providers.items()},
            "intercepts": sorted(self._interception.hosts) if self._interception else [],
            "workers": self._house.workers,
            **self._house.counters.totals(),
        }

    def _unexpected(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Something was raised where nobody waits. What it says may quote traffic: only its kind is logged."""
        error = context.get("exception")
        if isinstance(error, OSError):
            return  # connections break
        self._row.crashed += 1
        log.warning("unexpected in the event loop: %s", type(error).__name__ if error else "an error without a name")


class _Connection(LiveConnectionHandler):
    """One client's connection. mitmproxy's hooks go to our addons; those that none of them has cost nothing."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, options: Options, mode: mode_specs.ProxyMode,
        hooks: Hooks, top: Top, row: Row,
    ) -> None:  # fmt: skip
        super().__init__(reader, writer, options, mode)
        self._hooks = hooks
        self._row = row
        self.layer = top(self.layer.context)
        # mitmproxy opens five connections to an address at a time, which is for browsers; requests over HTTP/2 would wait.
        self.max_conns = defaultdict(lambda: asyncio.Semaphore(10_000))

    @property
    def busy(self) -> bool:
        """Whether a request is under way."""
        return any(getattr(one, "busy", False) for one in self.layer.context.layers)

    async def handle_hook(self, hook: commands.StartHook) -> None:
        for handle in self._hooks.get(hook.name, ()):
            try:
                handle(*hook.args())
            except Exception as error:  # a connection may fail by it; the others do not notice
                log.warning("%s failed: %s", hook.name, type(error).__name__)

    async def drain_writers(self) -> None:
        """Called by a side's task after each piece that it has read: wait until the others have taken what they were sent.

        mitmproxy lets all sides wait for all, one after the other; then an upload that a provider does not read holds up the
        answer that it would read after it.
        """
        me = asyncio.current_task()
        for io in list(self.transports.values()):
            if io.writer is not None and io.handler is not me:
                try:
                    await io.writer.drain()
                except OSError as error:
                    if io.handler is not None:
                        io.handler.cancel(f"Error sending data: {error}")
        client = self.transports.get(self.client)
        held = "ahead" if client and client.handler is me else "behind"
        while sum(getattr(one, held, 0) for one in self.layer.context.layers) > HELD_BYTES:  # noqa: ASYNC110 (as above)
            await asyncio.sleep(_HELD_SECONDS)

    def close_connection(self, connection: Connection, half_close: bool = False) -> None:
        """As mitmproxy does it, but a client whose provider has reset its connection is reset, too: an answer without a length
        would seem to be whole."""
        if connection is self.client and not half_close and self._was_reset():
            writer: Any = self.transports[connection].writer
            if writer is not None and not writer.is_closing() and not writer.transport.get_write_buffer_size():
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                writer.transport.abort()
        super().close_connection(connection, half_close)

    def _was_reset(self) -> bool:
        readers: list[Any] = [io.reader for one, io in self.transports.items() if one is not self.client and io.reader]
        return any(isinstance(reader.exception(), ConnectionResetError) for reader in readers)

    def log(self, message: str, level: int = logging.INFO, exc_info: Any = None) -> None:
        """Of what mitmproxy has to say, the errors: it has caught what a layer raised, and the connection would hang."""
        if level < logging.ERROR:
            return
        self._row.crashed += 1
        log.warning("a connection failed in the proxy and was closed: %s", _kind(exc_info))
        client = self.transports.get(self.client)
        if client and client.handler:
            client.handler.cancel("failed")


_RESET = struct.pack("ii", 1, 0)  # linger for no time: what closes then is reset


def _kind(exc_info: Any) -> str:
    """The type of an exception: what it says may quote traffic."""
    error = exc_info[1] if isinstance(exc_info, tuple) else sys.exception()
    return type(error).__name__ if error else "an error without a name"


def _options(tls: Tls) -> Options:
    """mitmproxy's options, without the thirty addons that would declare them, and the two seconds that these take to load."""
    options = Options(
        listen_host="127.0.0.1",
        ssl_verify_upstream_trusted_ca=os.environ.get("SSL_CERT_FILE") or None,
        tcp_timeout=IDLE_SECONDS,
    )
    for name, kind, value in (
        ("store_streamed_bodies", bool, False),
        ("connection_strategy", str, "lazy"),  # a dead provider must not keep us from answering
        ("stream_large_bodies", str | None, None),
        ("body_size_limit", str | None, None),
        ("keep_host_header", bool, True),  # we say ourselves what becomes of it
        ("proxy_debug", bool, False),
        ("normalize_outbound_headers", bool, True),
        ("validate_inbound_headers", bool, True),
    ):
        options.add_option(name, kind, value, "")
    tls.load(options)
    ctx.options = options
    return options


def _hooks(*addons: object) -> Hooks:
    """Their public methods, by mitmproxy's names of hooks."""
    hooks: dict[str, list[Callable[..., None]]] = {}
    for addon in addons:
        for name in vars(type(addon)):
            if not name.startswith("_"):
                hooks.setdefault(name, []).append(getattr(addon, name))
    return hooks
