"""HTTP/1.1 between a client and the providers it asks for: a layer of mitmproxy that passes the bytes as they came.

mitmproxy's own HTTP layer takes messages apart and puts them together again: chunks get other borders, trailers and interim
answers are lost, a WebSocket's frames wait until their message is whole. Here only the head of a request is written anew, and
of it only the target, Host and our own headers; what is in a body is looked at for the copy, behind the bytes' back.

One connection of the client has one to a provider at a time, like a direct one: it is opened with the first request, closed
when the client goes, and its end is the client's end. A client that closes its sending side only counts as gone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import Any

from mitmproxy import connection
from mitmproxy.proxy import commands, context, events, layer
from mitmproxy.proxy.layers.tls import ServerTLSLayer
from mitmproxy.proxy.utils import expect

from ephemeral.providers import Provider
from ephemeral.streams import apis, sockets
from ephemeral_proxy.answers import assembled, last_words, problem, unreachable
from ephemeral_proxy.body import Body, BodyError
from ephemeral_proxy.copies.sending import Copies, Copy
from ephemeral_proxy.counters import Row
from ephemeral_proxy.head import LIMIT_BYTES, UNTIL_CLOSE, HeadError, RequestHead, ResponseHead
from ephemeral_proxy.routing import Routes, Way, ours

Commands = layer.CommandGenerator[None]

_END = b"\r\n\r\n"
_OTHER_ENDS = (b"\n\n", b"\n\r\n")
"""Some servers and clients end lines with LF alone. There is no reading on from there: who reads it otherwise is right, too."""


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
        self._heard: deque[tuple[_Upstream, Callable[[], Commands]]] = deque()
        self._hearing = False
        self._over = False

    @property
    def busy(self) -> bool:
        """Whether a request is under way."""
        return self._request is not None

    @property
    def ahead(self) -> int:
        """Bytes of the client that are held because they cannot go on yet: nothing more is to be read from it then."""
        return len(self._ahead) + (self._upstream.unsent if self._upstream else 0)

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
            elif self._upstream is None and event.connection is self.context.server:
                yield from self._close()  # opened by the layers around us, and closed before anything was asked
        elif isinstance(event, events.DataReceived):
            yield from self._from_client(event.data)
        elif isinstance(event, events.ConnectionClosed):
            # Whoever asked does not want the answer any more: the provider is told by the end of its connection.
            yield from self._close()

    def _within(self, upstream: _Upstream, event: events.Event) -> Commands:
        """Let the layers of the connection to a provider handle an event. What they ask for and wait for is noted; what comes out
        of them towards us is dealt with when they are done, for they are not to be entered while they work (a piece sent to the
        provider from within would be encrypted twice)."""
        for command in upstream.root.handle_event(event):
            if command.blocking:
                self._asked[command] = upstream
            yield command
        if self._hearing:
            return
        self._hearing = True
        try:
            while self._heard:
                whose, deal = self._heard.popleft()
                if whose is self._upstream and not self._over:
                    yield from deal()
        finally:
            self._hearing = False

    def hear(self, upstream: _Upstream, deal: Callable[[], Commands]) -> None:
        """Something has come from a provider."""
        self._heard.append((upstream, deal))

    # ----------------------------------------------------------------------------------------------------- from the client

    def _from_client(self, data: bytes) -> Commands:
        if not self._over:
            self._ahead += data
            yield from self._go_on()

    def _go_on(self) -> Commands:
        """Deal with what the client has sent, as far as it can be dealt with now."""
        while self._ahead and not self._over:
            request = self._request
            if request is None:
                end = self._ahead.find(_END)
                if end < 0:
                    if len(self._ahead) > LIMIT_BYTES:
                        yield from self._refuse(431, "Request Header Fields Too Large", "Send a shorter head.")
                    elif any(other in self._ahead for other in _OTHER_ENDS):
                        yield from self._refuse(400, "Bad Request", "End the lines of a request's head with CR and LF.")
                    return
                raw, self._ahead = self._ahead[: end + 4], self._ahead[end + 4 :]
                yield from self._begin(raw)
            elif request.state is _State.UPGRADED:
                data, self._ahead = self._ahead, b""
                yield from self._send(data)
                if request.copy:
                    request.copy.from_client(data)
            elif not request.body.done:
                yield from self._pass_body(request)
            elif request.state is _State.OPAQUE:
                self._request = None  # whoever asks again has had the answer, whatever it was
            else:
                return

    def _begin(self, raw: bytes) -> Commands:
        """A request's head has come: it goes to its provider, or is answered by us."""
        raw = raw.lstrip(b"\r\n")  # some clients end a body with a blank line too many
        if not raw:
            return
        self._row.requests += 1
        try:
            head = RequestHead(raw)
        except HeadError as error:
            yield from self._refuse(400, "Bad Request", f"The proxy cannot pass this request on, because {error}.")
            return
        way = self._routes.decide(head.target, head.all)
        if not isinstance(way, Way):
            self._row.refused += 1
            yield from self._answer(assembled(way, head.method))
            return
        self._request = _Request(head, self._copy_of(head, way))
        if self._upstream is None or self._upstream.provider != way.provider:
            yield from self._open(way.provider)
        yield from self._send(head.forwarded(way.target, way.host, ours))
        if self._request and self._request.body.done and self._request.copy:
            self._request.copy.request_end()

    def _copy_of(self, head: RequestHead, way: Way) -> Copy | None:
        # Some clients offer an upgrade (to HTTP/2) with ordinary requests.
        read = (head.upgrades and sockets.find(way.target)) or apis.find(head.method, way.target)
        return self._copies.begin(head.method, way.target, way.provider.name, head.fields) if read else None

    def _pass_body(self, request: _Request) -> Commands:
        """Pass on what of the client's bytes is the request's body."""
        try:
            taken, content = request.body.feed(self._ahead)
        except BodyError:
            yield from self._close()
            return
        data, self._ahead = self._ahead[:taken], self._ahead[taken:]
        yield from self._send(data)
        if request.copy:
            request.copy.request(content)
            if request.body.done:
                request.copy.request_end()
        if request.body.done and request.state is _State.ANSWERED:
            self._finish(request)

    # --------------------------------------------------------------------------------------------------- to the provider

    def _open(self, provider: Provider) -> Commands:
        if self._upstream:  # it belongs to another provider; its end means nothing to the client
            left, self._upstream = self._upstream, None
            yield from self._within(left, _Close())
        self._upstream = _Upstream(self, provider)
        yield from self._within(self._upstream, events.Start())
        yield from self._within(self._upstream, _Open())

    def _send(self, data: bytes) -> Commands:
        if self._upstream and data:
            if self._upstream.opening:
                self._upstream.unsent += len(data)
            yield from self._within(self._upstream, _Send(data))

    # ------------------------------------------------------------------------------------------------- from the provider

    def unreachable(self, provider: Provider, error: str) -> Commands:
        """There is no connection to the provider to be had."""
        self._row.unreachable += 1
        yield from self._answer(assembled(unreachable(provider, error)))

    def received(self, data: bytes) -> Commands:
        """Bytes of the provider. The client gets them whatever they are."""
        request = self._request
        if request is None or request.state is _State.OPAQUE:
            yield commands.SendData(self.context.client, data)
            return
        if request.state is _State.UPGRADED:
            yield commands.SendData(self.context.client, data)
            if request.copy:
                request.copy.from_server(data)
            return
        try:
            rest = request.read_answer(data)
            if request.state is _State.ANSWERED and request.body.done:
                # Before the client can have the last byte, and so before its next request can be on its way to the reader
                # through another worker.
                self._finish(request)
        except Exception:  # reading is for the copy alone
            rest = b""
            request.give_up()
            self._copies.failed()
        # What no answer accounts for is passed on, too: it is what a direct connection would have shown.
        yield commands.SendData(self.context.client, data)
        if request.state is _State.UPGRADED and rest and request.copy:
            request.copy.from_server(rest)
        yield from self._go_on()

    def closed(self) -> Commands:
        """The provider has closed the connection: so do we."""
        if self._request and self._request.may_end_here:
            self._finish(self._request)
        yield from self._close()

    # ---------------------------------------------------------------------------------------------------------------- ends

    def _finish(self, request: _Request) -> None:
        """A request was answered: the connection is free for another."""
        self._request = None
        if request.copy:
            request.copy.end()
            self._copies.flush()

    def _refuse(self, status: int, title: str, detail: str) -> Commands:
        self._row.refused += 1
        yield from self._answer(assembled(problem(status, title, detail)))

    def _answer(self, raw: bytes) -> Commands:
        """An answer of our own. It is the last one on this connection."""
        yield from self._stop()
        yield from last_words(self.context.client, raw)

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
            yield from self._within(upstream, _Close())


class _State(Enum):
    """How far the answer to a request is."""

    HEAD = auto()
    BODY = auto()
    ANSWERED = auto()
    UPGRADED = auto()
    """The connection is a pipe of bytes from here on."""
    OPAQUE = auto()
    """It is nothing that we can read: its bytes pass until the connection ends, or the client asks for something else."""


class _Request:
    """One request, and its answer."""

    def __init__(self, head: RequestHead, copy: Copy | None) -> None:
        self.copy = copy
        self.body = Body(head.length)
        self.state = _State.HEAD
        self._method = head.method
        self._head = b""
        self._answer = Body(0)
        self._ends_with_connection = False

    @property
    def may_end_here(self) -> bool:
        """Whether an answer whose connection ends now is whole."""
        return self.state is _State.ANSWERED or (self.state is _State.BODY and self._ends_with_connection)

    def read_answer(self, data: bytes) -> bytes:
        """Read on; the copy gets the content. Returns what is not this answer's, or comes after an upgrade."""
        while data:
            if self.state is _State.HEAD:
                self._head += data
                end = self._head.find(_END)
                if end < 0:
                    if len(self._head) > LIMIT_BYTES or any(other in self._head for other in _OTHER_ENDS):
                        self.give_up()
                    return b""
                raw, data, self._head = self._head[: end + 4], self._head[end + 4 :], b""
                self._begin_answer(raw)
            elif self.state is _State.BODY:
                try:
                    taken, content = self._answer.feed(data)
                except BodyError:
                    self.give_up()
                    return b""
                if self.copy:
                    self.copy.response(content)
                if self._answer.done:
                    self.state = _State.ANSWERED
                data = data[taken:]
            else:
                return data
        return b""

    def _begin_answer(self, raw: bytes) -> None:
        try:
            head = ResponseHead(raw, self._method)
        except HeadError:
            self.give_up()
            return
        if head.interim:
            return
        if self.copy:
            self.copy.answer(head.status, head.fields)
        if head.status == 101:
            self.state = _State.UPGRADED
            return
        self._answer = Body(head.length)
        self._ends_with_connection = head.length == UNTIL_CLOSE
        self.state = _State.ANSWERED if self._answer.done else _State.BODY

    def give_up(self) -> None:
        """The answer cannot be read. It passes all the same."""
        self.state = _State.OPAQUE
        self._head = b""
        if self.copy:
            self.copy.end(cut=True)


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
    """A connection to ``provider``: the layers it goes through (``root`` is the outermost), TLS where it wants that."""

    def __init__(self, relay: Relay, provider: Provider) -> None:
        self.provider = provider
        self.opening = False
        self.unsent = 0
        """Bytes that wait for it to be open."""
        place = relay.context.fork()
        around = place.server.address == (provider.host, provider.port)  # the layers around the relay hold it
        if not around:
            place.server = connection.Server(address=(provider.host, provider.port))
        self.connection = place.server
        self.root: layer.Layer
        if provider.scheme == "https" and not around:
            self.root = ServerTLSLayer(place)
            self.root.child_layer = _Link(place, relay, self)
        else:
            self.root = _Link(place, relay, self)


class _Link(layer.Layer):
    """The innermost layer of a connection to a provider."""

    def __init__(self, context: context.Context, relay: Relay, upstream: _Upstream) -> None:
        super().__init__(context)
        self._relay = relay
        self._upstream = upstream
        self._closed = False

    @expect(events.Start, events.DataReceived, events.ConnectionClosed, _Open, _Send, _Close)
    def _handle_event(self, event: Any) -> Commands:
        server, upstream, relay = self.context.server, self._upstream, self._relay
        if isinstance(event, _Close):
            self._closed = True
            if server.connected:
                yield commands.CloseConnection(server)
        elif self._closed:
            return
        elif isinstance(event, _Open):
            if not server.connected:
                upstream.opening = True
                error = yield commands.OpenConnection(server)
                upstream.opening = False
                upstream.unsent = 0
                if error:
                    self._closed = True
                    relay.hear(upstream, lambda: relay.unreachable(upstream.provider, error))
        elif isinstance(event, _Send):
            yield commands.SendData(server, event.data)
        elif isinstance(event, events.DataReceived):
            data = event.data
            relay.hear(upstream, lambda: relay.received(data))
        elif isinstance(event, events.ConnectionClosed):
            relay.hear(upstream, relay.closed)
