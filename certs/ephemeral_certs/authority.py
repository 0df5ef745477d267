"""A certificate authority in a directory.

    authority.pem   its key and certificate: whoever can read it can let anybody in
    ca.pem          its certificate alone: what the other side verifies with
    issued.json     every certificate it issued, and when which was revoked
    crl.pem         the revoked ones, signed
    lock            held by whoever changes any of them

EC P-256 throughout: TLS 1.3 needs no more, and handshakes stay cheap. Keys of what it issues are handed out and not kept.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ephemeral_certs import files
from ephemeral_certs.errors import CertsError

AUTHORITY_DAYS = 3650
LEAF_DAYS = 90
RENEW_BEFORE_DAYS = 30
"""A certificate with fewer days left is due."""
SKEW = datetime.timedelta(hours=1)
"""Certificates begin to be valid so long before they are made: clocks differ."""
CLIENT_URI = "ephemeral:client/"

CLIENT_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,58}[A-Za-z0-9])?")
_HOST_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")


@dataclass(frozen=True)
class Record:
    """One issued certificate. ``serial`` is upper-case hex without leading zeros; ``names`` are a server's names and addresses."""

    serial: str
    kind: Literal["server", "client"]
    name: str
    names: tuple[str, ...]
    issued_at: float
    expires_at: float
    revoked_at: float | None = None

    def valid(self, at: float) -> bool:
        return self.revoked_at is None and at < self.expires_at

    def days_left(self, at: float) -> float:
        return (self.expires_at - at) / 86_400


@dataclass(frozen=True)
class Issued:
    """A certificate with its key, both PEM; ``pem`` is the two in one file, which a replacement cannot tear apart."""

    record: Record
    certificate: bytes
    key: bytes

    @property
    def pem(self) -> bytes:
        return self.key + self.certificate


class Authority:
    """Open one with ``Authority.open(directory)``; ``Authority.create`` makes it first. Errors are CertsError."""

    def __init__(self, directory: Path, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self.directory = directory
        self._key = key
        self.certificate = certificate

    @staticmethod
    def exists(directory: Path) -> bool:
        return (directory / "authority.pem").exists()

    @classmethod
    def create(
        cls, directory: Path, name: str, *, days: float = AUTHORITY_DAYS, permitted: Sequence[str] = (), servers_only: bool = False,
        replace: bool = False,
    ) -> Authority:  # fmt: skip
        """A new authority called ``name`` in ``directory``; an error where there is one, unless it is to ``replace`` that.

        ``permitted`` (names, and those below them; or addresses) is all that it may then vouch for. A host's authority has none: only
        that host's clients ever trust it, for that host alone. One that goes into a trust store of a whole machine should, and should
        vouch for ``servers_only``: not for clients, mail or code.
        """
        files.private_directory(directory)
        with files.locked(directory / "lock"):
            if cls.exists(directory) and not replace:
                raise CertsError(f"There is an authority in {directory} already.", hint="Keep it, or move the directory away to begin anew.")
            key = ec.generate_private_key(ec.SECP256R1())
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
            now = _now()
            builder = (
                x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
                .serial_number(x509.random_serial_number()).not_valid_before(now - SKEW).not_valid_after(now + datetime.timedelta(days=days))
                .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
                .add_extension(_usage(authority=True), critical=True)
                .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            )  # fmt: skip
            if permitted:
                builder = builder.add_extension(_constraints(permitted), critical=True)
            if servers_only:
                builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            certificate = builder.sign(key, hashes.SHA256())
            files.write(directory / "authority.pem", _key_pem(key) + certificate.public_bytes(serialization.Encoding.PEM))
            made = cls(directory, key, certificate)
            made._publish([])
        return made

    @classmethod
    def open(cls, directory: Path) -> Authority:
        path = directory / "authority.pem"
        try:
            content = path.read_bytes()
            key = serialization.load_pem_private_key(content, None)
            certificate = x509.load_pem_x509_certificate(content)
        except FileNotFoundError:
            raise CertsError(f"There is no authority in {directory}.", hint="Type: ephemeral host certify --name NAME") from None
        except (OSError, ValueError, TypeError) as problem:
            raise CertsError(f"{path} cannot be read: {problem}.", hint="Run it as root; restore the file from a backup if it is damaged.") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise CertsError(f"{path} holds a key that is not its certificate's.", hint="Restore the file from a backup.")
        return cls(directory, key, certificate)

    @property
    def pem(self) -> bytes:
        """Its certificate, for those who verify."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issued(self) -> list[Record]:
        """All that it issued, oldest first."""
        path = self.directory / "issued.json"
        try:
            return [Record(**(entry | {"names": tuple(entry["names"])})) for entry in json.loads(path.read_text())]
        except (OSError, ValueError, TypeError, KeyError) as problem:
            # Nothing is issued over it: what it says about revoked certificates exists nowhere else.
            raise CertsError(f"{path} cannot be read: {problem}.", hint="Restore it from a backup.") from None

    def issue_server(self, names: Sequence[str], *, days: float = LEAF_DAYS) -> Issued:
        """A server's certificate for ``names``: host names and IP addresses, the first its common name."""
        if not names:
            raise CertsError("A server's certificate needs a name or an address.", hint="Give --name or --address.")
        sans = [_general_name(name) for name in names]
        clean = tuple(str(san.value) for san in sans)
        return self._issue("server", clean[0], clean, sans, ExtendedKeyUsageOID.SERVER_AUTH, days)

    def issue_client(self, name: str, *, days: float = LEAF_DAYS) -> Issued:
        """A client's certificate: ``name`` is its common name and, as ``ephemeral:client/NAME``, its URI."""
        if not CLIENT_NAME.fullmatch(name):
            raise CertsError(f"{name!r} is no client name.", hint="Use letters, digits, dots, dashes and underscores, at most 60 (for example laptop).")
        return self._issue("client", name, (), [x509.UniformResourceIdentifier(CLIENT_URI + name)], ExtendedKeyUsageOID.CLIENT_AUTH, days)

    def server_certificate(self, name: str, key: ec.EllipticCurvePublicKey, *, days: float) -> bytes:
        """A certificate (PEM) for the server ``name`` with that ``key``, of which nothing is written down: it cannot be revoked, so it is to be short."""
        san = _general_name(name)
        # An address as the common name would be taken for a DNS name, and held against the constraints on those.
        common = str(san.value) if isinstance(san, x509.DNSName) else f"address {san.value}"
        return self._sign(common, [san], ExtendedKeyUsageOID.SERVER_AUTH, key, days).public_bytes(serialization.Encoding.PEM)

    def revoke(self, name: str, *, but_newest: bool = False) -> list[Record]:
        """Revoke the valid client certificates of ``name`` (but the newest, where so asked). Returns those revoked now."""
        with files.locked(self.directory / "lock"):
            now = _now().timestamp()
            records = self.issued()
            theirs = [record.serial for record in records if record.kind == "client" and record.name == name and record.valid(now)]
            chosen = set(theirs[:-1] if but_newest else theirs)
            records = [replace(record, revoked_at=now) if record.serial in chosen else record for record in records]
            self._publish(records)
        return [record for record in records if record.serial in chosen]

    def _issue(
        self, kind: Literal["server", "client"], name: str, names: tuple[str, ...], sans: Sequence[x509.GeneralName],
        purpose: x509.ObjectIdentifier, days: float,
    ) -> Issued:  # fmt: skip
        key = ec.generate_private_key(ec.SECP256R1())
        now = _now()
        certificate = self._sign(name, sans, purpose, key.public_key(), days)
        record = Record(f"{certificate.serial_number:X}", kind, name, names, now.timestamp(), certificate.not_valid_after_utc.timestamp())
        with files.locked(self.directory / "lock"):
            self._publish([*self.issued(), record])
        return Issued(record, certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key))

    def _sign(
        self, name: str, sans: Sequence[x509.GeneralName], purpose: x509.ObjectIdentifier, key: ec.EllipticCurvePublicKey, days: float,
    ) -> x509.Certificate:  # fmt: skip
        now = _now()
        ends = min(now + datetime.timedelta(days=days), self.certificate.not_valid_after_utc)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])]))
            .issuer_name(self.certificate.subject).public_key(key).serial_number(x509.random_serial_number())
            .not_valid_before(now - SKEW).not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectAlternativeName(sans), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )  # fmt: skip

    def _publish(self, records: Sequence[Record]) -> None:
        """Write down ``records`` and what follows from them. The list first: the revocation list is made from it again each time."""
        files.write(self.directory / "issued.json", json.dumps([asdict(record) for record in records], indent=1) + "\n")
        files.write(self.directory / "crl.pem", self._revocations(records))
        files.write(self.directory / "ca.pem", self.pem)

    def _revocations(self, records: Sequence[Record]) -> bytes:
        now = _now()
        # It is read where it is written, so it cannot be stale, and one that expired would shut everybody out: valid as long as we are.
        builder = (
            x509.CertificateRevocationListBuilder().issuer_name(self.certificate.subject)
            .last_update(now - SKEW).next_update(self.certificate.not_valid_after_utc)
            .add_extension(x509.CRLNumber(int(now.timestamp() * 1000)), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )  # fmt: skip
        for record in records:
            if record.revoked_at is not None and record.expires_at > now.timestamp():
                at = datetime.datetime.fromtimestamp(record.revoked_at, datetime.UTC)
                entry = x509.RevokedCertificateBuilder().serial_number(int(record.serial, 16)).revocation_date(at).build()
                builder = builder.add_revoked_certificate(entry)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def revoked_serials(crl: bytes) -> frozenset[str]:
    """The serials (as in Record) that a revocation list names. Raises ValueError for bytes that are none."""
    return frozenset(f"{entry.serial_number:X}" for entry in x509.load_pem_x509_crl(crl))


def server_names(certificate: bytes) -> tuple[str, ...]:
    """The names and addresses in a server's certificate (PEM, its key may stand before it). Raises ValueError for bytes that are none."""
    try:
        sans = x509.load_pem_x509_certificate(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(san.value) for san in sans if isinstance(san, (x509.DNSName, x509.IPAddress)))


def permitted_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """The names and addresses that an authority may vouch for; none where it is not constrained."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(one.value).removesuffix("/32").removesuffix("/128") for one in constraints.permitted_subtrees or ())


def expires_at(certificate: bytes) -> float:
    """Unix time at which a certificate (PEM) ends. Raises ValueError for bytes that are none."""
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc.timestamp()


def _general_name(name: str) -> x509.DNSName | x509.IPAddress:
    try:
        return x509.IPAddress(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        lower = name.lower().rstrip(".")
        if not _HOST_NAME.fullmatch(lower):
            raise CertsError(f"{name!r} is neither a host name nor an IP address.", hint="For example sandbox.example.com or 203.0.113.7.") from None
        return x509.DNSName(lower)


def _constraints(permitted: Sequence[str]) -> x509.NameConstraints:
    """Only ``permitted``. A constraint says nothing about names of other kinds than its own: the kind that is not permitted at all is excluded."""
    found = [_constraint(one) for one in permitted]
    excluded: list[x509.GeneralName] = []
    if not any(isinstance(one, x509.DNSName) for one in found):
        excluded.append(x509.DNSName(""))
    if not any(isinstance(one, x509.IPAddress) for one in found):
        excluded += [x509.IPAddress(ipaddress.ip_network("0.0.0.0/0")), x509.IPAddress(ipaddress.ip_network("::/0"))]
    return x509.NameConstraints(found, excluded or None)


def _constraint(name: str) -> x509.GeneralName:
    san = _general_name(name)
    return san if isinstance(san, x509.DNSName) else x509.IPAddress(ipaddress.ip_network(str(san.value)))


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
