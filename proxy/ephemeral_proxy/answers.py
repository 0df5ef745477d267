"""What the proxy says in its own name: refusals, its health, and that the provider cannot be reached."""

from __future__ import annotations

import json
from typing import Any

from mitmproxy import connection, http
from mitmproxy.net.http import http1
from mitmproxy.proxy import commands, layer

from ephemeral.providers import OPENAI, Provider

_LINGER_SECONDS = 2.0
"""How long a client may take to see our own answer and close."""


def answer(
    status: int, content: dict[str, Any], content_type: str = "application/json", **headers: str
) -> http.Response:
    """A small JSON answer of our own. The connection ends with it: what else came on it is not read."""
    return http.Response.make(
        status, json.dumps(content).encode(), {"Content-Type": content_type, "Connection": "close", **headers}
    )


def problem(status: int, title: str, detail: str, **headers: str) -> http.Response:
    """A refusal as ``application/problem+json``. ``detail`` ends in what to do."""
    content = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return answer(status, content, "application/problem+json", **headers)


def unreachable(provider: Provider | None, reason: str) -> http.Response:
    """A 502 in the shape that OpenAI's clients read. Of ``reason`` only its kind is passed on: it may quote bytes."""
    host = provider.host if provider else "the provider"
    if "certificate" in reason.lower():
        happened = (
            f"Ephemeral's proxy could not verify the TLS certificate of {host}: "
            "set SSL_CERT_FILE to the authority that signed it."
        )
    else:
        variable = "EPHEMERAL_UPSTREAMS" if provider and provider.name != OPENAI else "EPHEMERAL_UPSTREAM"
        happened = (
            f"Ephemeral's proxy could not reach {host}: see whether this machine can, "
            f"and whether {variable} names the right one."
        )
    error = {"message": happened, "type": "upstream_error", "param": None, "code": "upstream_unreachable"}
    return answer(502, {"error": error})


def assembled(response: http.Response, method: str = "GET") -> bytes:
    """An answer to a request with ``method`` as the bytes of HTTP/1."""
    return http1.assemble_response_head(response) if method == "HEAD" else http1.assemble_response(response)


def last_words(client: connection.Client, raw: bytes) -> layer.CommandGenerator[None]:
    """Send an answer and close. What the client still sends is let run out for a moment: closing at once would reset the
    connection, and the answer with it. Whoever yields these closes the connection at the ``Wakeup`` that follows."""
    yield commands.SendData(client, raw)
    yield commands.CloseTcpConnection(client, half_close=True)
    yield commands.RequestWakeup(_LINGER_SECONDS)
