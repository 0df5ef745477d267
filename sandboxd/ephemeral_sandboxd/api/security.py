"""Who may talk to sandboxd.

Unix socket: whoever can open it (mode 0600), without further questions. TCP: the Host must be one of ours (else 421: a
page that rebinds its DNS name to 127.0.0.1), the Origin, if there is one, must be ours (else 403: another page in the
user's browser), and everything under `/v1` wants the bearer token or the dashboard's cookie (else 401).

TLS, from other machines: the same, with other answers. A client certificate brought the request here; it must still be valid (else 403).
The Host must be a name in our certificate, and the token one of those that were handed out for it (api/remote.py): the local token is not.
"""

from __future__ import annotations

import hashlib
import hmac
import socket
from collections.abc import Iterable

from aiohttp import web
from aiohttp.typedefs import Handler

from ephemeral_sandboxd.api import static
from ephemeral_sandboxd.api.remote import GATE, Gate, is_tls
from ephemeral_sandboxd.errors import Refused

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
COOKIE = "ephemeral"

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""On everything that a browser may be shown. Styles may be inline (charts size themselves); scripts may not."""


class Security:
    def __init__(self, token: str, *, hosts: Iterable[str], origins: Iterable[str]) -> None:
        if not token:
            raise ValueError("sandboxd needs a token for TCP: an empty one would open it to every local process")
        self._token = token.encode()
        # The cookie is derived, so that a browser's cookie store never holds the token itself.
        self._cookie = hmac.new(self._token, b"ephemeral dashboard", hashlib.sha256).hexdigest()
        self._hosts = LOOPBACK | {host.lower() for host in hosts}
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if is_local_socket(request):
            return await handler(request)
        if is_tls(request.transport):
            return await self._remote(request, handler)
        host = request.headers.get("Host", "")
        if host_name(host) not in self._hosts:
            raise Refused(
                "Wrong host", "The Host header names no host that sandboxd serves.",
                "Use http://127.0.0.1:PORT, or allow the name when starting sandboxd.", status=421,
            )  # fmt: skip
        origin = request.headers.get("Origin")
        if origin is not None and not self._is_ours(origin.lower(), host.lower()):
            raise Refused(
                "Wrong origin", "The request comes from a page that is not sandboxd's.",
                "Open the dashboard at sandboxd's own address, or allow the origin when starting sandboxd.",
            )  # fmt: skip
        if _wants_token(request) and not self._knows(request):
            raise Refused(
                "No valid token", "This needs the bearer token (Authorization: Bearer …) or the dashboard's cookie.",
                "The token is in the file `token` of the state directory; the dashboard opens with /?token=TOKEN.", status=401,
            )  # fmt: skip
        return await _handled(request, handler)

    async def _remote(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        gate = request.app.get(GATE)
        if gate is None or request.transport is None:
            raise Refused("Not open to other machines", "sandboxd serves none over TLS.", "Set EPHEMERAL_LISTEN on the host.")
        if why := gate.refusal(request.transport):
            raise Refused("Not let in", f"The client: {why}.", "On the host, type: ephemeral host invite NAME", status=403)
        host = request.headers.get("Host", "").lower()
        if host_name(host) not in gate.names:
            raise Refused(
                "Wrong host", "The Host header names no host of sandboxd's certificate.",
                "Use a name of the certificate in EPHEMERAL_HOST; on the host, ephemeral host status lists them.", status=421,
            )  # fmt: skip
        origin = request.headers.get("Origin")
        if origin is not None and origin.lower() != f"https://{host}":
            raise Refused("Wrong origin", "The request comes from a page that is not sandboxd's.", "Open the dashboard at sandboxd's own address.")
        if not _wants_token(request):
            return await _handled(request, handler)
        with gate.holding(request.transport, _remote_token(request, gate)):
            return await _handled(request, handler)

    async def front_door(self, request: web.Request) -> web.StreamResponse:
        """`/`: the dashboard; with `?token=` first its cookie, then the same address without the token in it."""
        given = request.query.get("token")
        if given is None:
            return await static.serve_index(request)
        response = web.Response(status=303, headers={"Location": "/", "Cache-Control": "no-store"})
        if is_tls(request.transport):
            gate = request.app[GATE]
            found, why = gate.token(given)
            if found is None:
                raise Refused("Wrong token", f"The token in the address {why}.", "On the host, type: ephemeral token create NAME")
            response.set_cookie(COOKIE, gate.cookie(found), httponly=True, samesite="Strict", path="/", secure=True)
            return response
        if not hmac.compare_digest(given.encode(errors="replace"), self._token):
            raise Refused("Wrong token", "The token in the address is not sandboxd's.", "Take the address `ephemeral up` prints.")
        response.set_cookie(COOKIE, self._cookie, httponly=True, samesite="Strict", path="/")
        return response

    def _is_ours(self, origin: str, host: str) -> bool:
        """Ours is the very address the request went to: another port of localhost is another program."""
        return origin in (f"http://{host}", f"https://{host}") or origin in self._origins

    def _knows(self, request: web.Request) -> bool:
        if hmac.compare_digest(_bearer(request).encode(errors="replace"), self._token):
            return True
        cookie = request.cookies.get(COOKIE, "")
        return hmac.compare_digest(cookie.encode(errors="replace"), self._cookie.encode())


async def _handled(request: web.Request, handler: Handler) -> web.StreamResponse:
    response = await handler(request)
    if not response.prepared:
        response.headers.update(HEADERS)
    return response


def _remote_token(request: web.Request, gate: Gate) -> str:
    """The id of the token that the request came with. Raises Refused."""
    why = "is missing"
    if given := _bearer(request):
        found, why = gate.token(given)
        if found is not None:
            return found.id
    elif token_id := gate.by_cookie(request.cookies.get(COOKIE, "")):
        return token_id
    raise Refused(
        "No valid token", f"The bearer token {why}.",
        "On the host, type: ephemeral token list; then ephemeral host invite NAME, or ephemeral token rotate NAME.", status=401,
    )  # fmt: skip


def _bearer(request: web.Request) -> str:
    """The token of the Authorization header; empty when there is none."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def _wants_token(request: web.Request) -> bool:
    """By the address as written and by the route it was matched to: two spellings of one path must not differ here."""
    resource = request.match_info.route.resource
    addresses = (request.path, resource.canonical if resource is not None else "")
    return any(address == "/v1" or address.startswith("/v1/") for address in addresses)


def is_local_socket(request: web.Request) -> bool:
    """True for the Unix socket. A connection that cannot be told counts as TCP."""
    connection = request.transport.get_extra_info("socket") if request.transport is not None else None
    return connection is not None and connection.family == socket.AF_UNIX


def host_name(host: str) -> str:
    """The name in a Host header, without port and brackets: `[::1]:8789` is `::1`."""
    host = host.lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
