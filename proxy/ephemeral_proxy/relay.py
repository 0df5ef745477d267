"""HTTP/1.1 between a client and the providers it asks for: a layer of mitmproxy that passes the bytes as they came.

mitmproxy's own HTTP layer takes messages apart and puts them together again: chunks get other borders, trailers and interim
answers are lost, a WebSocket's frames wait until their message is whole. Here only the head of a request is written anew, and
of it only the target, Host and our own headers; what is in a body is looked at for the copy, behind the bytes' back.

One connection of the client has one to a provider at a time, like a direct one: it is opened with the first request, closed
when the client goes, and its end is the client's end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mitmproxy import connection
from mitmproxy.proxy import commands, context, events, layer
from mitmproxy.proxy.layers.tls import ServerTLSLayer
from mitmproxy.proxy.utils import expect

from ephemeral.providers import Provider
from ephemeral.streams import apis, sockets
from ephemeral_proxy.answers import assembled, problem, unreachable
from ephemeral_proxy.body import Body, BodyError
from ephemeral_proxy.copies.sending import Copies, Copy
from ephemeral_proxy.counters import Row
from ephemeral_proxy.head import LIMIT_BYTES, UNTIL_CLOSE, HeadError, RequestHead, ResponseHead
from ephemeral_proxy.routing import Routes, Way, ours

Commands = layer.CommandGenerator[None]

_PIPELINE_BYTES = 1 << 20
"""What a client may send ahead of the answer it waits for, beyond the request's own body."""
_LINGER_SECONDS = 2.0
"""How long a client may take to see our own answer and close."""


class Relay(layer.Layer):
    """``routes`` decides where requests go; ``copies`` takes the copy of those that belong to conversations."""

    def __init__(self, context: context.Context, routes: Routes, copies: Copies, row: Row) -> None:
        super().__init__(context)
        self._routes = routes
        self._copies = copies
        self._row = row
        self._ahead = b""  # bytes of the client that wait for their turn
        self._request: _Request | None = None
        self._upstream: _Upstream | None = None
        self._asked: dict[commands.Command, _Upstream] = {}
        self._tunnel = False
        self._over = False

    @property
    def busy(self) -> bool:
        """Whether a request is under way."""
        return self._request is not None

    # ------------------------------------------------------------------------------------------------ mitmproxy's side

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, events.Start):
            return
        if isinstance(event, events.Wakeup):
            yield commands.CloseConnection(self.context.client)
        elif isinstance(event, events.CommandCompleted):
            upstream = self._asked.pop(event.command, None)
            if upstream:
                yield from self._within(upstream, event)
        elif isinstance(event, events.ConnectionEvent) and event.connection is not self.context.client:
            if self._upstream and event.connection is self._upstream.connection:
                yield from self._within(self._upstream, event)
        elif isinstance(event, events.DataReceived):
            yield from self._from_client(event.data)
        elif isinstance(event, events.ConnectionClosed):
            # Whoever asked does not want the answer any more: the provider is told by the end of its connection, as it would
            # be without us.
            yield from self._close()

    def _within(self, upstream: _Upstream, event: events.Event) -> Commands:
        """Let the layers of the connection to the provider handle an event; what they ask for and wait for is noted."""
        for command in upstream.root.handle_event(event):
            if command.blocking:
                self._asked.setdefault(command, upstream)  # the innermost asked: a request may begin while an answer ends
            yield command

    # ----------------------------------------------------------------------------------------------------- from the client

    def _from_client(self, data: bytes) -> Commands:
        if self._over:
            return
        if self._tunnel:
            yield from self._send(data)
            if self._request and self._request.copy:
                self._request.copy.from_client(data)
            return
        if self._request and self._request.body.done:
            self._ahead += data
            if len(self._ahead) > _PIPELINE_BYTES:
                yield from self._close()
            return
        data, self._ahead = self._ahead + data, b""
        while data and not self._over:
            if self._request is None:
                end = data.find(b"\r\n\r\n")
                if end < 0:
                    self._ahead = data
                    if len(data) > LIMIT_BYTES:
                        yield from self._refuse(431, "Request Header Fields Too Large", "Send a shorter head.")
                    return
                yield from self._begin(data[: end + 4])
                data = data[end + 4 :]
            elif self._request.body.done:
                self._ahead = data
                return
            else:
                data = yield from self._pass_body(self._request, data)

    def _begin(self, raw: bytes) -> Commands:
        """A request's head has come: it goes to its provider, or is answered by us."""
        while raw.startswith(b"\r\n"):  # some clients end a body with a blank line too many
            raw = raw[2:]
        self._row.requests += 1
        try:
            head = RequestHead(raw)
        except HeadError as error:
            yield from self._refuse(400, "Bad Request", f"The proxy cannot pass this request on, because {error}.")
            return
        way = self._routes.decide(head.target, head.all("host"), head.all("origin"))
        if not isinstance(way, Way):
            self._row.refused += 1
            yield from self._answer(assembled(way))
            return
        self._request = _Request(head, self._copy_of(head, way))
        if self._upstream is None or self._upstream.provider != way.provider:
            yield from self._open(way.provider)
        yield from self._send(head.forwarded(way.target, way.host, ours))
        if self._request and self._request.body.done and self._request.copy:
            self._request.copy.request_end()

    def _copy_of(self, head: RequestHead, way: Way) -> Copy | None:
        read = sockets.find(way.target) if head.upgrades else apis.find(head.method, way.target)
        return self._copies.begin(head.method, way.target, way.provider.name, head.fields) if read else None

    def _pass_body(self, request: _Request, data: bytes) -> layer.CommandGenerator[bytes]:
        """Pass on what of ``data`` is the request's body; return the rest."""
        try:
            taken, content = request.body.feed(data)
        except BodyError:
            yield from self._close()
            return b""
        yield from self._send(data[:taken])
        if request.copy:
            request.copy.request(content)
            if request.body.done:
                request.copy.request_end()
        if request.body.done and request.answered:
            yield from self._next()
        return data[taken:]

    # --------------------------------------------------------------------------------------------------- to the provider

    def _open(self, provider: Provider) -> Commands:
        if self._upstream:  # it belongs to another provider; its end means nothing to the client
            self._upstream.link.dead = True
            yield from self._within(self._upstream, _Close())
        self._upstream = _Upstream(self, provider)
        yield from self._within(self._upstream, events.Start())
        yield from self._within(self._upstream, _Open())

    def _send(self, data: bytes) -> Commands:
        if self._upstream and data:
            yield from self._within(self._upstream, _Send(data))

    # ------------------------------------------------------------------------------------------------- from the provider

    def unreachable(self, error: str) -> Commands:
        """There is no connection to the provider to be had."""
        if self._upstream:
            self._row.unreachable += 1
            yield from self._answer(assembled(unreachable(self._upstream.provider, error)))

    def received(self, data: bytes) -> Commands:
        """Bytes of the provider. The client gets them whatever they are."""
        if self._over:
            return
        request = self._request
        if self._tunnel and request:
            yield commands.SendData(self.context.client, data)
            if request.copy:
                request.copy.from_server(data)
            return
        if request is None or request.opaque:
            yield commands.SendData(self.context.client, data)
            return
        position = 0
        for piece in request.read_answer(data):
            position += len(piece)
        if request.answered and request.body.done:
            # Before the client can have the last byte, and so before its next request can be on another worker's way to the reader.
            request.finish()
            self._copies.flush()
        # What the head or the body did not take is passed on, too: it is what a direct connection would have shown.
        yield commands.SendData(self.context.client, data)
        if request.upgraded:
            self._tunnel = True
            rest = data[position:]
            if rest and request.copy:
                request.copy.from_server(rest)
            ahead, self._ahead = self._ahead, b""
            if ahead:
                yield from self._from_client(ahead)
        elif request.answered and request.body.done:
            yield from self._next()

    def closed(self) -> Commands:
        """The provider has closed the connection: so do we."""
        if self._over:
            return
        request = self._request
        if request and (request.answered or request.until_close):
            request.finish()
            self._copies.flush()
        yield from self._close()

    # ---------------------------------------------------------------------------------------------------------------- ends

    def _next(self) -> Commands:
        """A request was answered: the connection is free for another."""
        request, self._request = self._request, None
        if request:
            request.finish()
        ahead, self._ahead = self._ahead, b""
        if ahead:
            yield from self._from_client(ahead)

    def _refuse(self, status: int, title: str, detail: str) -> Commands:
        self._row.refused += 1
        yield from self._answer(assembled(problem(status, title, detail)))

    def _answer(self, raw: bytes) -> Commands:
        """An answer of our own. It is the last one on this connection. What the client still sends is let run out for a moment:
        closing at once would reset the connection, and the answer with it."""
        yield commands.SendData(self.context.client, raw)
        yield from self._stop()
        yield commands.CloseTcpConnection(self.context.client, half_close=True)
        yield commands.RequestWakeup(_LINGER_SECONDS)

    def _close(self) -> Commands:
        """Close both sides. An answer that was under way was cut."""
        yield from self._stop()
        yield commands.CloseConnection(self.context.client)

    def _stop(self) -> Commands:
        """Nothing more is read from either side, and the provider's is closed."""
        self._over = True
        self._ahead = b""
        if self._request and self._request.copy:
            self._request.copy.end(cut=True)
        self._request = None
        if self._upstream:
            upstream, self._upstream = self._upstream, None
            upstream.link.dead = True
            yield from self._within(upstream, _Close())


class _Request:
    """One request, and how far its answer is."""

    def __init__(self, head: RequestHead, copy: Copy | None) -> None:
        self.copy = copy
        self.body = Body(head.length)
        self.answered = False
        self.upgraded = False
        self.opaque = False
        """The answer is nothing that we can read: its bytes pass until the connection ends."""
        self._method = head.method
        self._head = b""
        self._answer: Body | None = None
        self.until_close = False

    def read_answer(self, data: bytes) -> Iterator[bytes]:
        """What of ``data`` belongs to this answer, piece by piece. The copy gets the content."""
        while data and not (self.answered or self.upgraded or self.opaque):
            if self._answer is None:
                before = len(self._head)
                self._head += data
                end = self._head.find(b"\r\n\r\n")
                if end < 0:
                    if len(self._head) > LIMIT_BYTES:
                        self._give_up()
                    yield data
                    return
                raw, self._head = self._head[: end + 4], b""
                taken = end + 4 - before
                yield data[:taken]
                data = data[taken:]
                self._begin_answer(raw)
            else:
                try:
                    taken, content = self._answer.feed(data)
                except BodyError:
                    self._give_up()
                    yield data
                    return
                if self.copy:
                    self.copy.response(content)
                self.answered = self._answer.done
                yield data[:taken]
                data = data[taken:]

    def _begin_answer(self, raw: bytes) -> None:
        try:
            head = ResponseHead(raw, self._method)
        except HeadError:
            self._give_up()
            return
        if head.interim:
            return
        if self.copy:
            self.copy.answer(head.status, head.fields)
        if head.status == 101:
            self.upgraded = True
            return
        self._answer = Body(head.length)
        self.until_close = head.length == UNTIL_CLOSE
        self.answered = self._answer.done

    def _give_up(self) -> None:
        self.opaque = True
        if self.copy:
            self.copy.end(cut=True)

    def finish(self) -> None:
        if self.copy:
            self.copy.end()


# ------------------------------------------------------------------------------------------- the connection to a provider


class _Event(events.Event):
    """What the relay asks of its connection to a provider."""


class _Open(_Event):
    pass


class _Close(_Event):
    pass


class _Send(_Event):
    def __init__(self, data: bytes) -> None:
        self.data = data


class _Upstream:
    """A connection to ``provider``: the layers it goes through, TLS where it wants that, and its end towards the relay."""

    def __init__(self, relay: Relay, provider: Provider) -> None:
        self.provider = provider
        place = relay.context.fork()
        around = place.server.address == (provider.host, provider.port)  # the layers around the relay hold it
        if not around:
            place.server = connection.Server(address=(provider.host, provider.port))
        self.connection = place.server
        self.root: layer.Layer
        if provider.scheme == "https" and not around:
            self.root = ServerTLSLayer(place)
            self.link = self.root.child_layer = _Link(place, relay)
        else:
            self.root = self.link = _Link(place, relay)


class _Link(layer.Layer):
    """The innermost layer of a connection to a provider. ``dead``: nobody wants to hear of it any more."""

    def __init__(self, context: context.Context, relay: Relay) -> None:
        super().__init__(context)
        self.dead = False
        self._relay = relay

    @expect(events.Start, events.DataReceived, events.ConnectionClosed, _Open, _Send, _Close)
    def _handle_event(self, event: Any) -> Commands:
        server = self.context.server
        if isinstance(event, _Close):
            if server.connected:
                yield commands.CloseConnection(server)
        elif self.dead:
            return
        elif isinstance(event, _Open):
            if not server.connected:
                error = yield commands.OpenConnection(server)
                if error and not self.dead:
                    self.dead = True
                    yield from self._relay.unreachable(error)
        elif isinstance(event, _Send):
            yield commands.SendData(server, event.data)
        elif isinstance(event, events.DataReceived):
            yield from self._relay.received(event.data)
        elif isinstance(event, events.ConnectionClosed):
            yield from self._relay.closed()
