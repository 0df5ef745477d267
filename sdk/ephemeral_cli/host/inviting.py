"""Letting another machine in, and out again: its certificate and its token, under one name."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from ephemeral_certs import invitation
from ephemeral_certs.authority import Authority
from ephemeral_certs.errors import CertsError
from ephemeral_certs.invitation import Bundle
from ephemeral_certs.tokens import TokenBook
from ephemeral_cli.host import certifying


def invite(state: Path, name: str, *, address: str = "", days: float, within_seconds: float) -> tuple[bytes, str]:
    """An invitation for the machine called ``name``, and the code that opens it.

    It holds a new certificate and a new token, both for ``days``; what ``name`` was given before stays valid until it expires or is
    revoked. Not accepted within ``within_seconds``, its token is dead. Raises CertsError.
    """
    known = certifying.identity(state)
    address = (address or known.address).rstrip("/")
    try:
        parts = urlsplit(address)
        host, port, scheme = parts.hostname, parts.port, parts.scheme
    except ValueError:
        host = port = scheme = None
    if scheme != "https" or not host or not port:
        raise CertsError(f"{address!r} is no address for another machine.", hint=f"For example --address {known.address}")
    if host not in known.names:
        raise CertsError(f"This host's certificate is not for {host}, but for {', '.join(known.names)}.", hint=f"Type: ephemeral host certify --name {host}")
    ours = Authority.open(state / "tls")
    issued = ours.issue_client(name, days=days)
    token = TokenBook(state / "tokens.json").create(name, days=days, use_within_seconds=within_seconds, beside=True)
    bundle = Bundle(address, name, ours.pem.decode(), issued.certificate.decode(), issued.key.decode(), token)
    return invitation.seal(bundle, within_seconds)


def revoke(state: Path, name: str, *, but_newest: bool) -> str:
    """Void what the machine called ``name`` comes in with, at once. One sentence of what was done. Raises CertsError."""
    certificates = len(Authority.open(state / "tls").revoke(name, but_newest=but_newest))
    tokens = 0 if but_newest else TokenBook(state / "tokens.json").revoke(name)
    if not certificates and not tokens:
        raise CertsError(f"{name} has {'no older certificate' if but_newest else 'neither a valid certificate nor a valid token'}.", hint="Type: ephemeral host status")
    return f"{name}: {certificates} certificate(s) and {tokens} token(s) revoked; its connections are cut within seconds"
