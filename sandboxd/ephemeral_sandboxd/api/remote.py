"""The third door: other machines, over TLS 1.3, each side with a certificate of this host's own authority, and a token besides.

`Gate` is who may come in: the certificates, the revocation list and the tokens, read again when their files change.
`Door` is the listening socket: it shakes hands with a limited number at a time, and cuts connections that may no longer be.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import hmac
import ipaddress
import logging
import secrets
import socket
import ssl
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from aiohttp import web

from ephemeral.tasks import Tasks
from ephemeral_certs import authority, files
from ephemeral_certs.errors import CertsError
from ephemeral_certs.tokens import Token, TokenCheck
from ephemeral_sandboxd.errors import BadRequest, Unavailable

log = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 10.0
HANDSHAKES = 64
"""Handshakes at a time; more are hung up on. One costs a millisecond of CPU, or ten seconds of nothing from somebody who stalls."""
HANDSHAKES_EACH = 8
"""The same from one address (IPv6: one /64), so that one stalling machine does not keep the others out."""
CONNECTIONS = 1024
NO_TLS = frozenset({"HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "WRONG_VERSION_NUMBER"})
"""Handshakes that failed because the other side does not speak TLS: it would not understand why."""
WATCH_SECONDS = 1.0
"""How long a connection lives on at most, once its certificate or token is void."""


class Gate:
    """Reads `STATE/tls` and `STATE/tokens.json`. Raises errors.Unavailable when there is no certificate to serve with."""

    def __init__(self, state: Path) -> None:
        self._tls = state / "tls"
        self._files = tuple(self._tls / name for name in ("ca.pem", "server.pem", "crl.pem"))
        self._stamps: tuple[files.Stamp | None, ...] = ()
        self._tokens = TokenCheck(state / "tokens.json")
        # Of this process only: a browser comes in again with its token after a restart.
        self._secret = secrets.token_bytes(32)
        self._streams: dict[int, tuple[asyncio.BaseTransport, str]] = {}
        self.names: frozenset[str] = frozenset()
        self._revoked: frozenset[str] = frozenset()
        try:
            self._load()
        except (OSError, ValueError) as problem:
            raise Unavailable(
                "No certificates to listen with", f"EPHEMERAL_LISTEN is set, and {self._tls}: {problem}.",
                "Type: ephemeral host certify --name NAME (or unset EPHEMERAL_LISTEN).",
            ) from problem  # fmt: skip

    def refresh(self) -> None:
        """Read again what has changed. Files that cannot be read leave everything as it was, and are tried again when they change."""
        stamps = tuple(files.stamp(file) for file in self._files)
        if stamps != self._stamps:
            try:
                self._load()
                log.info("certificates and revocation list read again")
            except (OSError, ValueError) as problem:
                self._stamps = stamps
                log.error("certificates in %s cannot be read, the ones before stay in use: %s", self._tls, problem)

    def refusal(self, transport: asyncio.BaseTransport) -> str | None:
        """Why the other side of this TLS connection may not be served (any more); None when it may."""
        certificate = transport.get_extra_info("peercert")
        if not certificate:
            return "no certificate"
        if certificate["serialNumber"].lstrip("0") in self._revoked:
            return "its certificate was revoked"
        if time.time() >= ssl.cert_time_to_seconds(certificate["notAfter"]):
            return "its certificate has expired"
        return None

    def token(self, given: str) -> tuple[Token | None, str]:
        """(the valid token that was given, '') or (None, why not)."""
        try:
            found = self._tokens.find(given)
        except CertsError as problem:
            log.error("tokens: %s", problem)
            return None, "cannot be checked"
        if found is None:
            return None, "is unknown"
        if why := self._tokens.trouble(found.id):
            return None, why
        try:
            self._tokens.used(found)
        except CertsError as problem:
            log.error("tokens: %s", problem)
        return found, ""

    def cookie(self, token: Token) -> str:
        """For a browser that came with this token."""
        return f"{token.id}.{hmac.new(self._secret, token.id.encode(), hashlib.sha256).hexdigest()}"

    def by_cookie(self, cookie: str) -> str | None:
        """The id of the token that the cookie was given for, when that is still valid."""
        token_id, _, signature = cookie.partition(".")
        expected = hmac.new(self._secret, token_id.encode(errors="replace"), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(signature.encode(errors="replace"), expected.encode()):
            return None
        return token_id if self.void(token_id) is None else None

    def void(self, token_id: str) -> str | None:
        """Why a token that was let in is not valid any more; None when it is. Tokens that cannot be read stay as they were."""
        try:
            return self._tokens.trouble(token_id)
        except CertsError:
            return None

    @contextlib.contextmanager
    def holding(self, transport: asyncio.BaseTransport | None, token_id: str) -> Iterator[None]:
        """While this lasts, the connection is cut when the token becomes void."""
        if transport is None:
            yield
            return
        self._streams[id(transport)] = (transport, token_id)
        try:
            yield
        finally:
            self._streams.pop(id(transport), None)

    def held(self) -> list[tuple[asyncio.BaseTransport, str]]:
        """The connections on which a token is being used now."""
        return list(self._streams.values())

    def _load(self) -> None:
        self._stamps = tuple(files.stamp(file) for file in self._files)
        ca, server, crl = self._files
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.sslobject_class = _Refusing
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_CRL_CHECK_LEAF
        context.num_tickets = 0  # a resumed session is not asked for its certificate again, so there are none
        context.load_verify_locations(ca)
        context.load_verify_locations(crl)
        context.load_cert_chain(server)
        names = authority.server_names(server.read_bytes())
        revoked = authority.revoked_serials(crl.read_bytes())
        self.context, self.names, self._revoked = context, frozenset(names), revoked


GATE = web.AppKey("gate", Gate)


class Door:
    """Listens at `listen` (`host:port`), and hands those that the gate lets in to the application's server."""

    def __init__(self, listen: str, gate: Gate, runner: web.AppRunner) -> None:
        self._gate = gate
        self._runner = runner
        self._tasks = Tasks()
        self._shaking: Counter[str] = Counter()
        self._listener = _listen(listen)
        self.port: int = self._listener.getsockname()[1]

    def open(self) -> None:
        self._tasks.start(self._accept(), "accept remote connections")
        self._tasks.start(self._watch(), "watch remote connections")

    async def close(self) -> None:
        """Let nobody in any more. Those who are in are the runner's."""
        await self._tasks.cancel()
        self._listener.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(self._listener)
            except OSError as problem:
                log.warning("a remote connection could not be accepted: %s", problem.strerror or problem)
                await asyncio.sleep(0.1)  # no file descriptors left, most likely: not in circles
                continue
            source = _source(address[0])
            assert self._runner.server is not None
            full = len(self._runner.server.connections) >= CONNECTIONS
            if full or self._shaking.total() >= HANDSHAKES or self._shaking[source] >= HANDSHAKES_EACH:
                connection.close()
                continue
            self._shaking[source] += 1
            self._tasks.start(self._shake(connection, source), "handshake")

    async def _shake(self, connection: socket.socket, source: str) -> None:
        connection.setblocking(False)
        assert self._runner.server is not None
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._runner.server, connection, ssl=self._gate.context, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
        except (OSError, TimeoutError) as problem:  # an SSLError is an OSError
            log.info("no handshake with %s: %s", source, type(problem).__name__)
            connection.close()
        finally:
            self._shaking[source] -= 1
            if not self._shaking[source]:
                del self._shaking[source]

    async def _watch(self) -> None:
        """New certificates and revocations take effect, on open connections too."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            self._gate.refresh()
            assert self._runner.server is not None
            for connection in self._runner.server.connections:
                if (open_one := connection.transport) is not None and is_tls(open_one) and (why := self._gate.refusal(open_one)):
                    _cut(open_one, why)
            for held, token_id in self._gate.held():
                if why := self._gate.void(token_id):
                    _cut(held, f"its token {why}")


class _Refusing(ssl.SSLObject):
    """Tells the other side why its handshake failed.

    Event loops hang up as soon as a handshake fails, with the alert (certificate expired, revoked, missing) still unsent. Here the failure
    looks like one that waits for more to read: the loop sends what there is to send. The other side hangs up on the alert, or is hung up on
    when its time for a handshake is over, or when it goes on sending.
    """

    _failure: ssl.SSLError | None = None
    _patience = 4

    def do_handshake(self) -> None:
        if self._failure is None:
            try:
                return super().do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except ssl.SSLError as problem:
                log.info("a handshake was refused: %s", problem.reason or problem)
                if problem.reason in NO_TLS:
                    raise
                self._failure = problem
        self._patience -= 1
        if self._patience < 0:
            raise self._failure
        raise ssl.SSLWantReadError


def is_tls(transport: asyncio.BaseTransport | None) -> bool:
    return transport is not None and transport.get_extra_info("ssl_object") is not None


def _cut(transport: asyncio.BaseTransport, why: str) -> None:
    log.info("a remote connection is cut: %s", why)
    if isinstance(transport, asyncio.WriteTransport):
        transport.abort()
    else:
        transport.close()


def _listen(listen: str) -> socket.socket:
    host, separator, port = listen.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
        number = int(port)
        if not separator or bracketed != (address.version == 6) or not 0 <= number < 65536:
            raise ValueError
    except ValueError:
        raise BadRequest(
            "EPHEMERAL_LISTEN is no address", f"{listen!r} is not an IP address and a port.",
            "Write [::]:8790 or 0.0.0.0:8790 for every network, or one address of this machine.",
        ) from None  # fmt: skip
    listener = socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.version == 6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # [::] means IPv4 as well
        listener.setblocking(False)
        listener.bind((str(address), number))
        listener.listen(256)
    except OSError as problem:
        listener.close()
        taken = problem.errno == errno.EADDRINUSE
        raise Unavailable(
            f"Port {number} is taken" if taken else "Cannot listen for other machines", f"{listen}: {problem.strerror or problem}.",
            f"Find who has it (ss -ltnp 'sport = :{number}'), or set EPHEMERAL_LISTEN to another address.",
        ) from problem  # fmt: skip
    return listener


def _source(address: str) -> str:
    """Whom a connection counts for."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)
