"""The authority for interception, in ``STATE/certs``: made where there is none that fits, and described."""

from __future__ import annotations

import hashlib
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

from ephemeral import providers, settings
from ephemeral_certs.errors import CertsError
from ephemeral_certs.interception import AUTHORITY_DAYS, Interception
from ephemeral_cli.certs import stores
from ephemeral_cli.errors import CommandError

RENEW_BEFORE_DAYS = 30


def directory() -> Path:
    return Path(settings.get("state")) / "certs"


def wanted_hosts() -> list[str]:
    """The hosts of the providers that are reached over TLS: only those can be asked for with CONNECT. Raises CommandError."""
    try:
        known = providers.configured()
    except providers.ProviderError as problem:
        raise CommandError(str(problem), exit_code=2) from None
    return list(dict.fromkeys(one.host.rstrip(".") for one in known.values() if one.scheme == "https"))


def init(*, new: bool) -> list[str]:
    """Make the authority, or keep it where it fits (and is not to be ``new``). A sentence for each thing that was done."""
    from ephemeral_cli.supervise import prepare_state  # with it comes httpx, which `ephemeral run` is not to wait for

    where, hosts = directory(), wanted_hosts()
    prepare_state(where.parent)
    before = _opened(where)
    why = "as was asked" if new else _why_another(before, hosts)
    if before is not None and not why:
        before.write_bundle()
        return ["The authority stays as it is; bundle.pem was made again from the roots that programs trust now.", *_described(before)]
    made = Interception.create(where, hosts, new_credential=new)
    if why is None:
        done = [f"An authority was made in {where}, for {AUTHORITY_DAYS} days."]
    else:
        done = [f"A new authority took the place of the one in {where} ({why}), for {AUTHORITY_DAYS} days.", "`ephemeral up` uses it once it is started again."]
        if stores.trusted():
            done.append("This machine still trusts the one before: type `ephemeral certs trust` again, or `ephemeral certs untrust`.")
    return [*done, *_described(made)]


def show() -> list[str]:
    """What there is, in sentences. Raises CertsError where there is nothing."""
    opened = Interception.open(directory())
    lines = list(_described(opened))
    differences = _differences(opened, wanted_hosts())
    if differences:
        lines.append(f"The configured providers are others by now ({differences}): type `ephemeral certs init`.")
    held = stores.trusted()
    if held is None:
        lines.append("This machine's own trust store does not hold it (`ephemeral certs trust` puts it there).")
    elif held.strip() == opened.pem.strip():
        lines.append("This machine's own trust store holds it (`ephemeral certs untrust` takes it out).")
    else:
        lines.append("This machine's own trust store holds another one of ours: type `ephemeral certs trust` or `ephemeral certs untrust`.")
    return lines


def _opened(where: Path) -> Interception | None:
    """The authority that is there; None where there is none, or none that can be used."""
    try:
        return Interception.open(where)
    except CertsError:
        return None


def _why_another(before: Interception | None, hosts: list[str]) -> str | None:
    """Why the one before will not do. Empty: it will. None: there is none."""
    if before is None:
        return "it could not be used any more" if Interception.exists(directory()) else None
    if (before.expires_at - time.time()) / 86_400 < RENEW_BEFORE_DAYS:
        return "it was about to expire"
    differences = _differences(before, hosts)
    return f"the configured hosts changed: {differences}; the one before cannot vouch for others than its own" if differences else ""


def _differences(known: Interception, hosts: list[str]) -> str:
    return ", ".join([
        *(f"now with {host}" for host in hosts if host not in known.hosts),
        *(f"without {host}" for host in sorted(known.hosts) if host not in hosts),
    ])  # fmt: skip


def _described(one: Interception) -> Iterator[str]:
    until = time.strftime("%Y-%m-%d", time.gmtime(one.expires_at))
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(one.pem.decode())).hexdigest()
    yield f"It may vouch for {', '.join(sorted(one.hosts))} and names below, as servers, until {until}, and for nothing else."
    yield f"certificate: {one.ca} (SHA-256 {digest})"
    yield f"key, readable by its owner only: {one.directory / 'authority.pem'}"
