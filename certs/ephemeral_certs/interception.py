"""The authority by which the proxy can read what programs say to the configured providers, where they know of no base URL.

    authority.pem   its key and certificate (see `authority`). Whoever can read it can pose as a provider to programs that trust it
    ca.pem          its certificate alone, for variables that add to the roots
    bundle.pem      the roots that programs trusted already, and its certificate: for variables that replace them
    proxy-token     the credential without which the proxy serves nobody

What it can do is bound in the certificate itself: the providers' names and those below them, servers only, one year. A year,
because the key lies on the machine that it is for: one that leaked is worthless then, and making another is one command.

Certificates of single hosts live for a day, in memory: nothing is written down of them, and there is nothing to revoke.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ephemeral_certs import authority, files, roots
from ephemeral_certs.authority import SKEW, Authority
from ephemeral_certs.errors import CertsError

AUTHORITY_DAYS = 365
LEAF_DAYS = 1
RENEW_SECONDS = 2 * 3600
"""A leaf with less time left is not handed out any more: clocks differ."""
USER = "ephemeral"
"""The user's name that belongs to the credential, in Proxy-Authorization."""
NAME = "Ephemeral interception"
"""How every such authority's name begins. They are told apart by what follows: a trust store may still hold the one before."""

_AGAIN = "Type: ephemeral certs init"


@dataclass(frozen=True)
class Leaf:
    """One host's certificate and its key, both PEM. ``expires_at`` is Unix time."""

    certificate: bytes
    key: bytes
    expires_at: float


class Interception:
    """Open it with ``Interception.open(directory)``; ``Interception.create`` makes it. Errors are CertsError."""

    def __init__(self, directory: Path, ours: Authority, credential: str, clock: Callable[[], float] = time.time) -> None:
        self.directory = directory
        self.hosts = frozenset(authority.permitted_names(ours.certificate))
        self.credential = credential
        self._authority = ours
        self._clock = clock
        # One for all hosts: who has it out of our memory could have had the authority's as well.
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._key_pem = self._key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        self._leaves: dict[str, Leaf] = {}

    @staticmethod
    def exists(directory: Path) -> bool:
        return Authority.exists(directory)

    @classmethod
    def create(cls, directory: Path, hosts: Sequence[str], *, new_credential: bool = False) -> Interception:
        """A new authority for ``hosts`` (names or addresses) in ``directory``, in place of the one that may be there.

        The credential stays, unless a ``new_credential`` is wanted: what was told of it goes on working. Programs have to be
        given the new certificate, and a proxy that runs goes on with the authority that it opened.
        """
        if not hosts:
            raise CertsError("There is no host to vouch for.", hint="Set EPHEMERAL_UPSTREAM or EPHEMERAL_UPSTREAMS to an https address.")
        ours = Authority.create(
            directory, f"{NAME} {secrets.token_hex(4)}", days=AUTHORITY_DAYS, permitted=hosts, servers_only=True, replace=True
        )
        path = directory / "proxy-token"
        credential = "" if new_credential else _read_credential(path)
        if not credential:
            credential = secrets.token_urlsafe(32)
            files.write(path, credential + "\n")
        made = cls(directory, ours, credential)
        made.write_bundle()
        return made

    @classmethod
    def open(cls, directory: Path) -> Interception:
        if not cls.exists(directory):
            raise CertsError(f"There is no authority for interception in {directory}.", hint=_AGAIN)
        opened = cls(directory, Authority.open(directory), _read_credential(directory / "proxy-token"))
        if not opened.hosts:
            raise CertsError(f"The authority in {directory} is not bound to any hosts: it is none for interception.", hint=f"{_AGAIN} (another takes its place).")
        if opened.expires_at <= time.time():
            raise CertsError(f"The authority in {directory} has expired.", hint=_AGAIN)
        if not (opened.credential and opened._is_told()):
            raise CertsError(f"What is in {directory} does not belong together.", hint=_AGAIN)
        return opened

    @property
    def ca(self) -> Path:
        return self.directory / "ca.pem"

    @property
    def bundle(self) -> Path:
        return self.directory / "bundle.pem"

    @property
    def pem(self) -> bytes:
        """The authority's certificate."""
        return self._authority.pem

    @property
    def expires_at(self) -> float:
        """Unix time at which the authority ends."""
        return self._authority.certificate.not_valid_after_utc.timestamp()

    def leaf(self, host: str) -> Leaf:
        """The certificate to show to who asked for ``host``; the same for about a day. Raises CertsError for a host that is not in ``hosts``."""
        name = host.strip("[]").lower().rstrip(".")
        if name not in self.hosts:
            raise CertsError(f"{host!r} is not the host of a configured provider.", hint="Its traffic is to be tunnelled.")
        now = self._clock()
        known = self._leaves.get(name)
        # The second half: a clock that was set back must not make us show what is not valid yet.
        if known and RENEW_SECONDS < known.expires_at - now < LEAF_DAYS * 86_400 + SKEW.total_seconds():
            return known
        if now >= self.expires_at:
            raise CertsError("The authority for interception has expired.", hint=_AGAIN)
        certificate = self._authority.server_certificate(name, self._key.public_key(), days=LEAF_DAYS)
        made = Leaf(certificate, self._key_pem, authority.expires_at(certificate))
        self._leaves[name] = made
        return made

    def write_bundle(self) -> None:
        """Make the bundle again, from the roots that programs trust now. Earlier authorities of ours are left out."""
        files.write(self.bundle, roots.gather(NAME.encode()) + self.pem)

    def _is_told(self) -> bool:
        """Whether the files for programs are those of this authority: a crash may have come between."""
        try:
            return self.ca.read_bytes() == self.pem and self.bundle.read_bytes().endswith(self.pem)
        except OSError:
            return False


def _read_credential(path: Path) -> str:
    """Empty where there is none. Raises CertsError for a file that is there and cannot be read."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as problem:
        raise CertsError(f"{path} cannot be read: {problem}.", hint=_AGAIN) from None
