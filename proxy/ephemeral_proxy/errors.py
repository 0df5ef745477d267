"""What the proxy says in its own name: refusals, and that the provider cannot be reached."""

from __future__ import annotations

import json
from typing import Any

from mitmproxy import http
from mitmproxy.connection import ConnectionState
from mitmproxy.net.http import http1
from mitmproxy.proxy import commands, context, layer
from mitmproxy.proxy.layers.http import HttpEvent, ResponseProtocolError
from mitmproxy.proxy.layers.http._events import ErrorCode
from mitmproxy.proxy.layers.http._http1 import Http1Server

from ephemeral_proxy.upstream import Upstream


def answer(
    status: int, content: dict[str, Any], content_type: str = "application/json", **headers: str
) -> http.Response:
    """A small JSON answer of our own."""
    return http.Response.make(status, json.dumps(content).encode(), {"Content-Type": content_type, **headers})


def problem(status: int, title: str, detail: str) -> http.Response:
    """A refusal as ``application/problem+json``. ``detail`` ends in what to do."""
    content = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return answer(status, content, "application/problem+json")


def unreachable(upstream: Upstream, code: ErrorCode, reason: str) -> http.Response:
    """A 502 in the shape that OpenAI's clients read. Of ``reason`` only its kind is passed on: it may quote bytes."""
    if code is not ErrorCode.CONNECT_FAILED:
        happened = f"{upstream.host} closed the connection, or sent something that is no HTTP, before it answered."
    elif "certificate" in reason.lower():
        happened = (
            f"Ephemeral's proxy could not verify the TLS certificate of {upstream.host}: "
            "set SSL_CERT_FILE to the authority that signed it."
        )
    else:
        happened = (
            f"Ephemeral's proxy could not reach {upstream.host}: see whether this machine can, "
            "and whether EPHEMERAL_UPSTREAM names the right one."
        )
    error = {"message": happened, "type": "upstream_error", "param": None, "code": "upstream_unreachable"}
    return answer(502, {"error": error}, Connection="close")


class ClientConnection(Http1Server):
    """mitmproxy's HTTP/1 side towards the client, except that a dead provider is reported in JSON instead of HTML."""

    def __init__(self, context: context.Context, upstream: Upstream) -> None:
        super().__init__(context)
        self._upstream = upstream

    def send(self, event: HttpEvent) -> layer.CommandGenerator[None]:
        if (
            isinstance(event, ResponseProtocolError)
            and event.code.http_status_code() == 502
            and not self.response
            and self.conn.state & ConnectionState.CAN_WRITE
        ):
            answer = unreachable(self._upstream, event.code, event.message)
            yield commands.SendData(self.conn, http1.assemble_response(answer))
            yield commands.CloseConnection(self.conn)
        else:
            yield from super().send(event)
