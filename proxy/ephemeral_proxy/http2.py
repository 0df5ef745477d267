"""HTTP/2, by mitmproxy's own layers: what the relay does for HTTP/1, as hooks on flows.

These layers take messages apart. Bodies, headers and trailers pass whole; interim answers (1xx) do not, ``Expect`` is answered
here, and WebSockets over HTTP/2 are refused.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from mitmproxy import http
from mitmproxy.proxy import context, events, layer
from mitmproxy.proxy.layers.http import (
    HttpLayer,
    HTTPMode,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
)
from mitmproxy.proxy.layers.http._events import ErrorCode
from mitmproxy.proxy.layers.http._http2 import Http2Server

from ephemeral.providers import Provider
from ephemeral.streams import apis
from ephemeral_proxy.answers import problem, unreachable
from ephemeral_proxy.copies.sending import Copies, Copy
from ephemeral_proxy.counters import Row
from ephemeral_proxy.routing import Routes, Way, ours

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

_ROUTES = "ephemeral routes"
_COPY = "ephemeral copy"
_PROVIDER = "ephemeral provider"


class Http2(HttpLayer):
    """The layer of one connection; its flows know where they may go."""

    def __init__(self, context: context.Context, routes: Routes) -> None:
        super().__init__(context, HTTPMode.transparent)
        self._client = self.connections[context.client] = _Client(self.context.fork(), self._provider)
        context.client.ephemeral_routes = routes  # type: ignore[attr-defined]

    @property
    def busy(self) -> bool:
        """Whether a request is under way."""
        return bool(self.streams)

    @property
    def behind(self) -> int:
        """Bytes that the client does not take yet: nothing more is to be read for it then."""
        return sum(len(piece.data) for waiting in self._client.h2_conn.stream_buffers.values() for piece in waiting)

    def _provider(self, stream: int) -> Provider | None:
        """Where a stream's request goes."""
        found = self.streams.get(stream)
        return found.flow.metadata.get(_PROVIDER) if found else None


class _Client(Http2Server):
    """mitmproxy's side towards the client, except that a provider that cannot be reached is told of in JSON, not in HTML."""

    def __init__(self, context: context.Context, provider: Callable[[int], Provider | None]) -> None:
        super().__init__(context)
        self._provider = provider

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, ResponseProtocolError) and event.code is ErrorCode.CONNECT_FAILED and self._may_answer(event.stream_id):
            answer = unreachable(self._provider(event.stream_id), event.message)
            answer.headers.pop("connection")  # HTTP/2 has none
            answer.headers = http.Headers([(name.lower(), value) for name, value in answer.headers.fields])
            body = answer.raw_content or b""
            for part in (
                ResponseHeaders(event.stream_id, answer),
                ResponseData(event.stream_id, body),
                ResponseEndOfMessage(event.stream_id),
            ):
                yield from super()._handle_event(part)
        else:
            yield from super()._handle_event(event)

    def _may_answer(self, stream: int) -> bool:
        return self.is_open_for_us(stream) and not self.h2_conn.streams[stream].state_machine.headers_sent


class Flows:
    """The hooks. Every body streams, so that none is ever held; no hook raises."""

    def __init__(self, copies: Copies, row: Row) -> None:
        self._copies = copies
        self._row = row

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        try:
            self._begin(flow)
        except Exception:  # enforcement fails closed
            flow.request.stream = False
            flow.response = problem(400, "Bad Request", "The proxy cannot tell where this request should go.")

    def _begin(self, flow: http.HTTPFlow) -> None:
        request = flow.request
        self._row.requests += 1
        routes: Routes = flow.client_conn.ephemeral_routes  # type: ignore[attr-defined]
        host = request.authority or request.headers.get("host", "")
        way = routes.decide(request.path, lambda name: [host] if name == "host" else request.headers.get_all(name))
        if not isinstance(way, Way):
            self._row.refused += 1
            flow.response = way
            return
        fields = [(name.lower(), value) for name, value in request.headers.items()]
        read = apis.find(request.method, way.target)
        copy = self._copies.begin(request.method, way.target, way.provider.name, fields) if read else None
        if copy:
            flow.metadata[_COPY] = copy
            flow.request.stream = functools.partial(_request, copy)
        else:
            flow.request.stream = True
        flow.metadata[_PROVIDER] = way.provider
        # The parts of mitmproxy's request that say where to connect; assigning `host` would rewrite headers, too.
        request.data.scheme = way.provider.scheme.encode()
        request.data.host = way.provider.host
        request.data.port = way.provider.port
        request.path = way.target
        if request.authority:
            request.data.authority = way.host.encode()
        if "host" in request.headers:
            request.headers["host"] = way.host
        for name in {name for name, _ in fields if ours(name)}:
            del request.headers[name]

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        if flow.response is None:
            return
        flow.response.stream = True
        copy: Copy | None = flow.metadata.get(_COPY)
        if copy:
            fields = [(name.lower(), value) for name, value in flow.response.headers.items()]
            copy.answer(flow.response.status_code, fields)
            flow.response.stream = functools.partial(_response, copy)

    def response(self, flow: http.HTTPFlow) -> None:
        self._end(flow, cut=False)

    def error(self, flow: http.HTTPFlow) -> None:
        self._end(flow, cut=True)

    def _end(self, flow: http.HTTPFlow, cut: bool) -> None:
        copy: Copy | None = flow.metadata.pop(_COPY, None)
        if copy:
            copy.end(cut)
            self._copies.flush()  # before the client learns that this was all (see Relay.received)


def _request(copy: Copy, data: bytes) -> bytes:
    """mitmproxy's stream callback for the request's body; the empty piece is its end."""
    copy.request(data) if data else copy.request_end()
    return data


def _response(copy: Copy, data: bytes) -> bytes:
    copy.response(data)
    return data
