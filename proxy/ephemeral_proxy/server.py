"""The proxy's wiring: one ordered list of addons, and the life of the process around them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from typing import Any

from mitmproxy import http
from mitmproxy.addons.core import Core
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.master import Master
from mitmproxy.options import Options

from ephemeral.events import EventSink
from ephemeral.streams.conversation import Conversations
from ephemeral_proxy.encodings import DECODERS
from ephemeral_proxy.guard import Guard
from ephemeral_proxy.layers import HttpOnly, UpstreamTls
from ephemeral_proxy.routing import OwnHeaders, Routing
from ephemeral_proxy.tee import Tee
from ephemeral_proxy.upstream import Upstream

log = logging.getLogger("ephemeral.proxy")

DRAIN_SECONDS = 0.7
"""What open requests get to finish once the process is told to stop. The whole stop stays below a second."""

IDLE_SECONDS = 24 * 3600
"""A connection without a byte for this long is closed. Models think for many minutes; clients have their own timeouts."""


class Lifecycle:
    """Knows whether the proxy listens and which requests are open; stops it when told."""

    def __init__(self, master: Master, proxyserver: Proxyserver, upstream: Upstream) -> None:
        self.failure: OSError | None = None
        self._master = master
        self._proxyserver = proxyserver
        self._upstream = upstream
        self._open: set[str] = set()
        self._idle = asyncio.Event()
        self._stopping: asyncio.Task[None] | None = None

    def running(self) -> None:
        for server in self._proxyserver.servers:
            if isinstance(server.last_exception, OSError):
                self.failure = server.last_exception
                self._master.should_exit.set()
                return
        host, port, *_ = self._proxyserver.listen_addrs()[0]
        log.info(
            "listening on http://%s:%d/v1, forwarding to %s://%s%s/v1",
            host, port, self._upstream.scheme, self._upstream.authority, self._upstream.base,
        )  # fmt: skip

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        self._open.add(flow.id)
        self._idle.clear()

    def response(self, flow: http.HTTPFlow) -> None:
        self._close(flow)

    def error(self, flow: http.HTTPFlow) -> None:
        self._close(flow)

    def _close(self, flow: http.HTTPFlow) -> None:
        self._open.discard(flow.id)
        if not self._open:
            self._idle.set()

    def stop(self) -> None:
        """Stop listening, let open requests finish for a moment, then exit. Told twice, exit at once."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._drain())
        else:
            self._master.should_exit.set()

    async def _drain(self) -> None:
        for server in self._proxyserver.servers:
            await server.stop()
        if self._open:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), DRAIN_SECONDS)
        await asyncio.sleep(0.02)  # the last bytes of the last answer leave after its hook
        self._master.should_exit.set()


async def serve(upstream: Upstream, port: int, sink: EventSink) -> OSError | None:
    """Serve on 127.0.0.1:``port`` until SIGTERM or SIGINT. Returns the error when it could not listen."""
    options = Options(
        # Always `http`: mitmproxy would open a QUIC port beside an `https` one. Routing sets the real scheme.
        mode=[f"reverse:http://{upstream.address}"],
        listen_host="127.0.0.1",
        listen_port=port,
        ssl_verify_upstream_trusted_ca=os.environ.get("SSL_CERT_FILE") or None,
    )
    master = Master(options)
    conversations = Conversations(sink.put, DECODERS)
    proxyserver = Proxyserver()
    lifecycle = Lifecycle(master, proxyserver, upstream)

    def health() -> dict[str, Any]:
        return {
            "status": "ok",
            "upstream": upstream.host,
            "events_sent": sink.sent,
            "events_dropped": sink.dropped,
            "unreadable": conversations.failures,
        }

    # In the order in which they see a request.
    master.addons.add(
        Core(),
        proxyserver,
        UpstreamTls(),
        HttpOnly(upstream),
        lifecycle,
        Guard(),
        Routing(upstream, health),
        Tee(conversations),
        OwnHeaders(),
    )
    options.update(
        connection_strategy="lazy",  # a dead provider must not keep us from answering
        keep_host_header=True,  # the guard judges it; routing replaces it
        tcp_timeout=IDLE_SECONDS,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lifecycle.stop)
    await master.run()
    return lifecycle.failure
