"""A worker: a process that carries traffic. mitmproxy's connection handling on an event loop, and nothing that waits for us."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mitmproxy import ctx
from mitmproxy.options import Options
from mitmproxy.proxy import commands, layer, mode_specs
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.server import LiveConnectionHandler
from mitmproxy.utils import asyncio_utils

from ephemeral.providers import Provider
from ephemeral_certs.interception import Interception
from ephemeral_proxy.copies.sending import Copies
from ephemeral_proxy.counters import Counters, Row
from ephemeral_proxy.front import Plain, Tunnel
from ephemeral_proxy.http2 import Flows
from ephemeral_proxy.loop import Loop
from ephemeral_proxy.routing import ByPath
from ephemeral_proxy.tls import Tls

log = logging.getLogger("ephemeral.proxy")

DRAIN_SECONDS = 0.7
"""What open requests get to finish once the process is told to stop. The whole stop stays below a second."""

IDLE_SECONDS = 24 * 3600
"""A connection without a byte for this long is closed. Models think for many minutes; clients have their own timeouts."""

BACKLOG = 1024

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
    interception: Interception | None
    counters: Counters
    workers: int


def run(house: House, connection: socket.socket, row: Row) -> None:
    """The process: serve until SIGTERM. ``connection`` leads to the reader."""
    gc.freeze()  # what was loaded before the fork is shared, and never looked at again
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to pass on
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(_Worker(house, connection, row).serve())


class _Worker:
    def __init__(self, house: House, connection: socket.socket, row: Row) -> None:
        self._house = house
        self._connection = connection
        self._row = row
        self._open: set[_Connection] = set()
        self._idle = asyncio.Event()

    async def serve(self) -> None:
        asyncio.get_running_loop().set_exception_handler(self._unexpected)
        copies = Copies(self._connection, self._row)
        tls = Tls(self._house.interception)
        options = _options(tls)
        hooks = _hooks(tls, Flows(copies, self._row))
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        servers = []
        with asyncio_utils.set_eager_task_factory():
            for port in self._house.ports:
                mode = mode_specs.ProxyMode.parse("regular" if port.name == "intercept" else "reverse:http://127.0.0.1:1")
                accept = self._accept(options, hooks, mode, self._top(port, copies))
                servers.append(await asyncio.start_server(accept, sock=port.socket, backlog=BACKLOG))
            await stop.wait()
            for server in servers:
                server.close()
            await self._drain()
            copies.flush()

    def _top(self, port: Port, copies: Copies) -> Top:
        """The first layer of a connection that comes in on ``port``."""
        providers, interception = self._house.providers, self._house.interception
        if port.name == "intercept":
            assert interception
            return lambda context: Tunnel(context, providers, interception, copies, self._row)
        routes = ByPath(providers, self.health, providers.get(port.name))
        return lambda context: Plain(context, routes, copies, self._row)

    def _accept(self, options: Options, hooks: Hooks, mode: mode_specs.ProxyMode, top: Top) -> Callable[[Any, Any], Any]:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._row.connections += 1
            handler = _Connection(reader, writer, options, mode, hooks, top)
            self._open.add(handler)
            try:
                await handler.handle_client()
            finally:
                self._open.discard(handler)
                if not self._open:
                    self._idle.set()

        return accept

    async def _drain(self) -> None:
        """Let what is under way finish, for a moment."""
        deadline = asyncio.get_running_loop().time() + DRAIN_SECONDS
        while any(handler.busy for handler in self._open) and asyncio.get_running_loop().time() < deadline:
            self._idle.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), 0.02)

    def health(self) -> dict[str, Any]:
        """What ``/healthz`` says; the counters are of all processes, since the proxy's start."""
        return {
            "status": "ok",
            "providers": {name: f"{one.scheme}://{one.authority}{one.base}" for name, one in self._house.providers.items()},
            "intercepts": sorted(self._house.interception.hosts) if self._house.interception else [],
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
        hooks: Hooks, top: Top,
    ) -> None:  # fmt: skip
        super().__init__(reader, writer, options, mode)
        self._hooks = hooks
        self.layer = top(self.layer.context)

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
