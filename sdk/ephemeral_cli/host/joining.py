"""What an invitation leaves on the other machine: ``STATE/hosts/HOST/`` (ephemeral.remote says what is in it)."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

from ephemeral import Client, remote, settings, wire
from ephemeral.errors import EphemeralError
from ephemeral_certs import authority, files, invitation
from ephemeral_certs.errors import CertsError
from ephemeral_cli.errors import CommandError


def join(content: bytes, code: str) -> str:
    """Open the invitation and keep what is in it. Returns the host's address. Raises CertsError."""
    bundle = invitation.unseal(content, code)
    place = remote.folder(bundle.address)
    certificate = bundle.certificate.encode()
    for directory in (settings.get("state"), place.parent, place):
        files.private_directory(directory)
    files.write(place / "ca.pem", bundle.ca)
    files.write(place / "client.pem", bundle.key.encode() + certificate)
    files.write(place / "token", bundle.token + "\n")
    about = {"address": bundle.address, "client": bundle.client, "expires_at": authority.expires_at(certificate), "joined_at": time.time()}
    files.write(place / "host.json", json.dumps(about, indent=1) + "\n")
    return bundle.address


def ask(address: str) -> wire.Host | EphemeralError:
    """What the host says of itself, or why it does not. An invitation counts as accepted when the host was asked."""
    try:
        with Client(address, remote.token(address)) as client:
            return client.host()
    except EphemeralError as problem:
        return problem


def leave(host: str) -> Path:
    """Forget a host: its certificate, key and token here. Raises CommandError where this machine has not joined it."""
    place = _place(host)
    shutil.rmtree(place)
    return place


def set_token(host: str, token: str) -> None:
    """Use another token for a host that this machine has joined. Raises CommandError, CertsError."""
    if not token or not token.isascii() or any(sign.isspace() for sign in token):
        raise CommandError("that is no token", "paste what `ephemeral token rotate NAME` printed on the host", 2)
    files.write(_place(host) / "token", token + "\n")


def hosts() -> list[str]:
    """Addresses of the hosts that this machine has joined."""
    found = []
    for place in sorted((settings.get("state") / "hosts").glob("*/host.json")):
        try:
            found.append(str(json.loads(place.read_text())["address"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # half a directory: joining again makes it whole
    return found


def read(path: Path) -> bytes:
    """The invitation in ``path``. Raises CertsError."""
    try:
        with path.open("rb") as file:
            return file.read(invitation.MOST_BYTES + 1)
    except OSError as problem:
        raise CertsError(f"{path} cannot be read: {problem.strerror}.", hint="On the host, type: ephemeral host invite NAME") from None


def _place(host: str) -> Path:
    address = host if "://" in host else f"https://{host}"
    place = remote.folder(address)
    if not (place / "host.json").exists():
        known = ", ".join(hosts()) or "none"
        raise CommandError(f"this machine has not joined {host} (it has joined: {known})", "ephemeral host join INVITATION", 2)
    return place
