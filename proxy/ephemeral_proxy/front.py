"""The first layers of a connection: what the client speaks, and where it may go with that."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from mitmproxy import connection
from mitmproxy.proxy import commands, context, events, layer
from mitmproxy.proxy.layers import ClientTLSLayer, ServerTLSLayer, TCPLayer

from ephemeral.providers import Provider
from ephemeral_certs.interception import USER, Interception
from ephemeral_proxy.answers import assembled, last_words, problem
from ephemeral_proxy.copies.sending import Copies
from ephemeral_proxy.counters import Row
from ephemeral_proxy.head import LIMIT_BYTES, HeadError, RequestHead
from ephemeral_proxy.http2 import PREFACE, Http2
from ephemeral_proxy.relay import Relay
from ephemeral_proxy.routing import ByPath, Fixed, Routes

Commands = layer.CommandGenerator[None]


class Front(layer.Layer):
    """A layer that hands over to another as soon as it knows which."""

    _next: layer.Layer | None = None

    def _handle_event(self, event: events.Event) -> Commands:
        if self._next:
            yield from self._next.handle_event(event)
        else:
            yield from self._decide(event)

    def _decide(self, event: events.Event) -> Commands:
        raise NotImplementedError

    def _hand_over(self, to: layer.Layer, data: bytes = b"") -> Commands:
        """``data``: what the client has sent already."""
        self._next = to
        yield from to.handle_event(events.Start())
        if data:
            yield from to.handle_event(events.DataReceived(self.context.client, data))


class Plain(Front):
    """A port for base URLs: HTTP/1, or HTTP/2 by those who know beforehand that we speak it."""

    def __init__(self, context: context.Context, routes: ByPath, copies: Copies, row: Row) -> None:
        super().__init__(context)
        self._routes = routes
        self._copies = copies
        self._row = row
        self._data = b""

    def _decide(self, event: events.Event) -> Commands:
        if isinstance(event, events.ConnectionClosed):
            yield commands.CloseConnection(self.context.client)
        if not isinstance(event, events.DataReceived):
            return
        self._data += event.data
        if self._data.startswith(PREFACE):
            client, first = self.context.client, next(iter(self._routes.providers.values()))
            client.alpn, client.alpn_offers = b"h2", (b"h2", b"http/1.1")
            self.context.server.address = (first.host, first.port)  # mitmproxy wants one; every request brings its own
            yield from self._hand_over(Http2(self.context, self._routes), self._data)
        elif not PREFACE.startswith(self._data):
            yield from self._hand_over(Relay(self.context, self._routes, self._copies, self._row), self._data)


class Closed(Front):
    """A port that nobody can be served on."""

    def _decide(self, event: events.Event) -> Commands:
        yield commands.CloseConnection(self.context.client)


class Tunnel(Front):
    """The port for programs that only know HTTPS_PROXY. The hosts of providers are read; all others pass as they are."""

    def __init__(
        self, context: context.Context, providers: Mapping[str, Provider], interception: Interception, copies: Copies, row: Row,
    ) -> None:  # fmt: skip
        super().__init__(context)
        self._providers = providers
        self._interception = interception
        self._copies = copies
        self._row = row
        self._data = b""
        self._over = False

    def _decide(self, event: events.Event) -> Commands:
        if isinstance(event, (events.ConnectionClosed, events.Wakeup)):
            yield commands.CloseConnection(self.context.client)
        if not isinstance(event, events.DataReceived) or self._over:
            return
        self._data += event.data
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            if len(self._data) > LIMIT_BYTES:
                yield from self._refuse(431, "Request Header Fields Too Large", "Send a shorter head.")
            return
        self._row.requests += 1
        raw, rest = self._data[: end + 4], self._data[end + 4 :]
        self._data = b""
        try:
            head = RequestHead(raw)
        except HeadError as error:
            yield from self._refuse(400, "Bad Request", f"The proxy cannot read this request, because {error}.")
            return
        if not self._may(head):
            yield from self._refuse(
                407,
                "Proxy Authentication Required",
                "Take the proxy's whole address, its credential included, from `ephemeral certs env`.",
                **{"Proxy-Authenticate": 'Basic realm="ephemeral"'},
            )
            return
        address = _address(head.target) if head.method == "CONNECT" else None
        if address is None:
            yield from self._refuse(
                400,
                "Bad Request",
                "This port is for HTTPS alone: set HTTPS_PROXY to it, and not HTTP_PROXY. For a base URL take the other port.",
            )
            return
        yield from self._connect(address, rest)

    def _may(self, head: RequestHead) -> bool:
        """Whether the client knows the credential: others on this machine shall not reach through us what they may not."""
        wanted = base64.b64encode(f"{USER}:{self._interception.credential}".encode()).decode()
        scheme, _, given = head.get("proxy-authorization").partition(" ")
        return scheme.lower() == "basic" and hmac.compare_digest(given.strip().encode("latin-1"), wanted.encode())

    def _connect(self, address: tuple[str, int], rest: bytes) -> Commands:
        host, _ = address
        self.context.server = connection.Server(address=address, sni=host)  # verified as what was asked for
        provider = next((one for one in self._providers.values() if (one.host, one.port) == address), None)
        if provider and provider.scheme == "https" and host in self._interception.hosts:
            yield commands.SendData(self.context.client, _ESTABLISHED)
            outer = ServerTLSLayer(self.context)
            outer.child_layer = inner = ClientTLSLayer(self.context)
            inner.child_layer = _Decrypted(self.context, Fixed(provider), self._copies, self._row)
            yield from self._hand_over(outer, rest)
            return
        error = yield commands.OpenConnection(self.context.server)
        if error:
            self._row.unreachable += 1
            yield from self._refuse(502, "Bad Gateway", f"The proxy cannot connect to {host}: see whether this machine can.")
            return
        yield commands.SendData(self.context.client, _ESTABLISHED)
        yield from self._hand_over(TCPLayer(self.context, ignore=True), rest)

    def _refuse(self, status: int, title: str, detail: str, **headers: str) -> Commands:
        self._row.refused += 1
        self._over = True
        yield from last_words(self.context.client, assembled(problem(status, title, detail, **headers)))


class _Decrypted(Front):
    """Inside of both TLS connections, once they stand: the protocol is the one that they agreed on."""

    def __init__(self, context: context.Context, routes: Routes, copies: Copies, row: Row) -> None:
        super().__init__(context)
        self._make: Callable[[], layer.Layer] = lambda: (
            Http2(context, routes) if context.client.alpn == b"h2" else Relay(context, routes, copies, row)
        )

    def _decide(self, event: events.Event) -> Commands:
        yield from self._hand_over(self._make())


_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


def _address(target: str) -> tuple[str, int] | None:
    """``host:port`` of a CONNECT."""
    try:
        parts = urlsplit(f"//{target}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    return (host.rstrip("."), port) if host and port else None
