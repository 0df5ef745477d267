"""The server's own authority and certificate, in ``STATE/tls``."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ephemeral_certs import authority, files
from ephemeral_certs.authority import RENEW_BEFORE_DAYS, Authority
from ephemeral_certs.errors import CertsError
from ephemeral_cli.supervise import prepare_state

PORT = 8790


@dataclass(frozen=True)
class Identity:
    """What the server is known by: names and addresses, the port, and until when its certificate says so."""

    names: tuple[str, ...]
    port: int
    expires_at: float

    @property
    def address(self) -> str:
        """The URL that the first name makes."""
        host = self.names[0]
        return f"https://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def days_left(self) -> float:
        return (self.expires_at - time.time()) / 86_400


def certify(state: Path, names: Sequence[str] = (), port: int | None = None) -> tuple[Identity, list[str]]:
    """Make the state directory, the authority and the server's certificate, or what of them is missing or due.

    Without ``names`` the certificate keeps those that it has; where there is none yet, this machine's own addresses. Returns what
    the server is known by now, and a sentence for each thing that was done. Raises CertsError, CommandError.
    """
    prepare_state(state)
    tls, done = state / "tls", []
    before = identity(state) if (tls / "server.pem").exists() else None
    wanted = list(names) or (list(before.names) if before else own_addresses())
    if not wanted:
        raise CertsError("This machine has no address of its own that could be found.", hint="Type: ephemeral host certify --name NAME (or --address IP)")
    if Authority.exists(tls):
        ours = Authority.open(tls)
    else:
        ours = Authority.create(tls, f"Ephemeral on {wanted[0]}")
        done.append(f"an authority was made in {tls}, for ten years")
    number = port or (before.port if before else PORT)
    if before is None or set(before.names) != {name.strip("[]").lower() for name in wanted} or before.days_left < RENEW_BEFORE_DAYS:
        issued = ours.issue_server(wanted)
        files.write(tls / "server.pem", issued.pem)
        done.append(f"a certificate for {', '.join(issued.record.names)} was made, for {authority.LEAF_DAYS} days")
    if before is None or before.port != number:
        files.write(tls / "host.json", json.dumps({"port": number}) + "\n")
    return identity(state), done


def identity(state: Path) -> Identity:
    """What the server is known by. Raises CertsError when it has no certificate."""
    path = state / "tls" / "server.pem"
    try:
        content = path.read_bytes()
        names, ends = authority.server_names(content), authority.expires_at(content)
    except FileNotFoundError:
        raise CertsError(f"This machine has no server's certificate ({path}).", hint="Type: ephemeral host certify --name NAME") from None
    except (OSError, ValueError) as problem:
        raise CertsError(f"{path} cannot be read: {problem}.", hint="Run it as root; if it is damaged, remove it and type: ephemeral host certify --name NAME") from None
    return Identity(names, _port(state), ends)


def own_addresses() -> list[str]:
    """The addresses that this machine reaches the world from, IPv4 first. Nothing is sent to find out."""
    found = []
    for family, somewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((somewhere, 9))
                found.append(str(probe.getsockname()[0]))
        except OSError:
            continue  # no way out by this family
    return [address for address in found if not address.startswith(("127.", "fe80:"))]


def _port(state: Path) -> int:
    try:
        return int(json.loads((state / "tls" / "host.json").read_text())["port"])
    except (OSError, ValueError, KeyError, TypeError):
        return PORT
