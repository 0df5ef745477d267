"""A sandboxd on another machine: TLS 1.3, each side known to the other by a certificate of that host's own authority.

What it takes was put in ``STATE/hosts/HOST/`` by `ephemeral host join`:

    ca.pem        the host's authority: nothing else is trusted there
    client.pem    this machine's key and certificate
    token         the bearer token
    host.json     {"address", "client", "expires_at"}: for error messages and `ephemeral doctor`

Standard library only.
"""

from __future__ import annotations

import json
import ssl
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ephemeral import errors, settings

_NAME_MISMATCH, _IP_MISMATCH, _EXPIRED, _NOT_YET_VALID = 62, 64, 10, 9  # OpenSSL's X509_V_ERR_…


def is_remote(address: str) -> bool:
    return address.startswith("https://")


def folder(address: str) -> Path:
    """Where what belongs to ``address`` (``https://host:port``) lies, or would."""
    return settings.remote_directory(address)


def token(address: str) -> str:
    """The bearer token for ``address``: EPHEMERAL_TOKEN, else the one that was joined with. Empty when there is none."""
    if configured := settings.get("token"):
        return str(configured)
    try:
        return (folder(address) / "token").read_text().strip()
    except OSError:
        return ""


def context(address: str) -> ssl.SSLContext:
    """How to speak TLS to ``address``. Raises errors.Unauthorized, with what to type, when this machine has not joined it."""
    place = folder(address)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies, names included
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    try:
        made.load_verify_locations(place / "ca.pem")
        made.load_cert_chain(place / "client.pem")
    except FileNotFoundError:
        raise errors.Unauthorized(f"This machine has no certificate for {_host(address)} (none in {place}).", hint=_invite(address)) from None
    except (OSError, ssl.SSLError) as problem:
        raise errors.Unauthorized(f"The certificate for {_host(address)} in {place} cannot be read: {problem}.", hint=_invite(address)) from None
    return made


def explain(address: str, problem: BaseException) -> errors.EphemeralError | None:
    """What a failed request to ``address`` means, where TLS or certificates are why; else None."""
    if not is_remote(address):
        return None
    host, found = _host(address), _tls_error(problem)
    if isinstance(found, ssl.SSLCertVerificationError):
        return _not_theirs(address, found)
    reason = (found.reason or "") if found else ""
    if reason.endswith("ALERT_CERTIFICATE_REVOKED"):
        return errors.Unauthorized(f"This machine's certificate for {host} was revoked.", hint=_invite(address))
    if reason.endswith("ALERT_CERTIFICATE_EXPIRED") or (_ended(address) and _hung_up(problem)):
        return errors.Unauthorized(f"This machine's certificate for {host} has expired.", hint=_invite(address))
    if "ALERT" in reason and any(word in reason for word in ("UNKNOWN_CA", "CERTIFICATE", "ACCESS_DENIED", "DECRYPT_ERROR")):
        return errors.Unauthorized(f"{host} does not accept this machine's certificate ({reason.replace('_', ' ').lower()}).", hint=_invite(address))
    if "WRONG_VERSION_NUMBER" in reason or "RECORD_LAYER" in reason or "HTTP_REQUEST" in reason:
        return errors.NotRunning(f"What answers at {address} does not speak TLS.", hint="EPHEMERAL_HOST needs the port of EPHEMERAL_LISTEN on the host (8790).")
    if type(problem).__name__ in ("ConnectError", "ConnectTimeout") and not found:
        return errors.NotRunning(
            f"Nothing answers at {address} ({str(problem) or 'no answer'}).",
            hint="On the host: systemctl status ephemeral-sandboxd, and does its firewall let this machine in? (ephemeral host status)",
        )  # fmt: skip
    if found:
        return errors.NotRunning(f"No TLS connection to {address} ({reason or found}).", hint="On the host, type: ephemeral host status")
    if _hung_up(problem):
        return errors.NotRunning(
            f"{host} hung up.", hint=f"It may be restarting, too busy, or this machine's certificate was revoked. On the host, type: ephemeral host status. Revoked? {_invite(address)}",
        )  # fmt: skip
    return None


def joined(address: str) -> dict[str, Any]:
    """``host.json`` of ``address``; empty when this machine has not joined it."""
    try:
        found = json.loads((folder(address) / "host.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _not_theirs(address: str, problem: ssl.SSLCertVerificationError) -> errors.EphemeralError:
    host = _host(address)
    if problem.verify_code in (_NAME_MISMATCH, _IP_MISMATCH):
        return errors.Unauthorized(f"The certificate at {address} is not for {host}.", hint=f"Use a name that it has, or on the host, type: ephemeral host certify --name {host}")
    if problem.verify_code == _EXPIRED:
        return errors.Unauthorized(f"The certificate of {host} has expired.", hint="On the host, type: ephemeral host certify")
    if problem.verify_code == _NOT_YET_VALID:
        return errors.Unauthorized(f"The certificate of {host} is not valid yet.", hint="Check the clocks of both machines (timedatectl).")
    return errors.Unauthorized(
        f"What answers at {address} is not the host that this machine joined ({problem.verify_message}).",
        hint=f"Was the host set up anew? Then join it anew. If not, somebody may be in between. {_invite(address)}",
    )


def _tls_error(problem: BaseException | None) -> ssl.SSLError | None:
    for _ in range(10):
        if problem is None or isinstance(problem, ssl.SSLError):
            return problem
        problem = problem.__cause__ or problem.__context__
    return None


def _hung_up(problem: BaseException) -> bool:
    """By name: this module does without the HTTP client."""
    return type(problem).__name__ in ("ReadError", "WriteError", "CloseError", "RemoteProtocolError")


def _ended(address: str) -> bool:
    ends = joined(address).get("expires_at")
    return isinstance(ends, (int, float)) and time.time() > ends


def _host(address: str) -> str:
    return urlsplit(address).hostname or address


def _invite(address: str) -> str:
    name = joined(address).get("client", "NAME")
    return f"On the host, type: ephemeral host invite {name} > {name}.invite; here, type: ephemeral host join {name}.invite"
