"""Either side of a remote host: what there is, and when it expires."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from pathlib import Path

from ephemeral import remote
from ephemeral_certs.authority import RENEW_BEFORE_DAYS, Authority
from ephemeral_certs.tokens import Token, read, used_at
from ephemeral_cli.host import certifying, joining

SOON_DAYS = 14


def lines(state: Path) -> Iterator[str]:
    """What to print: this machine as a host, then the hosts that it has joined. Raises CertsError for files that are damaged."""
    nothing = True
    if Authority.exists(state / "tls"):
        nothing = False
        yield from _host(state)
    if joined := joining.hosts():
        nothing = False
        yield "Hosts that this machine has joined:"
        for address in joined:
            about = remote.joined(address)
            yield f"  {address} as {about.get('client')}: {until(float(about.get('expires_at', 0)), SOON_DAYS)}"
    if nothing:
        yield "This machine is no host (ephemeral host init), and has joined none (ephemeral host join INVITATION)."


def token_lines(tokens: list[Token], used: dict[str, float]) -> Iterator[str]:
    """One line a token."""
    now = time.time()
    for token in tokens:
        trouble = token.trouble(now, token.id in used)
        state = trouble or (f"valid until {day(token.expires_at)}" if token.expires_at else "valid")
        last = f"last used {day(used[token.id])}" if token.id in used else "never used"
        yield f"{token.name}  {token.id}  made {day(token.created_at)}, {last}: {state}"


def until(expires_at: float, soon_days: float) -> str:
    """``valid until DAY``, with a warning when that is soon or past."""
    left = (expires_at - time.time()) / 86_400
    if left < 0:
        return f"EXPIRED on {day(expires_at)}"
    return f"valid until {day(expires_at)}" + (f" (only {left:.0f} days left)" if left < soon_days else "")


def day(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _host(state: Path) -> Iterator[str]:
    ours, known = Authority.open(state / "tls"), certifying.identity(state)
    yield f"This host is {known.address} (its certificate names {', '.join(known.names)})."
    yield f"  its certificate: {until(known.expires_at, RENEW_BEFORE_DAYS - 1)}"
    yield f"  its authority: {until(ours.certificate.not_valid_after_utc.timestamp(), 365)}"
    clients = [record for record in ours.issued() if record.kind == "client"]
    yield "Certificates of other machines:" if clients else "No other machine was let in yet (ephemeral host invite NAME)."
    for record in clients:
        ends = f"REVOKED on {day(record.revoked_at)}" if record.revoked_at is not None else until(record.expires_at, SOON_DAYS)
        yield f"  {record.name}  {record.serial[:16]}…  made {day(record.issued_at)}: {ends}"
    path = state / "tokens.json"
    if tokens := read(path):
        yield "Tokens:"
        yield from (f"  {line}" for line in token_lines(tokens, used_at(path)))
