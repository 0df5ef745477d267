"""The roots that programs on this machine trust, to be handed on: a variable such as SSL_CERT_FILE replaces them, and does not add to them."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path

from ephemeral_certs.errors import CertsError

NAMED_BY = (
    "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "NODE_EXTRA_CA_CERTS", "DENO_CERT",
)  # fmt: skip
"""Variables by which a user may have given programs more roots, for example those of a company's own authority."""

_SYSTEM = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # what many others have
)
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def gather(leave_out: bytes, environment: Mapping[str, str] = os.environ) -> bytes:
    """The machine's roots and those in the files of NAMED_BY, each once, as PEM; but none whose DER holds ``leave_out``.

    A file that cannot be read is passed over, as the programs that it is meant for do. Raises CertsError where there is no root at all.
    """
    named = [Path(environment[name]) for name in NAMED_BY if environment.get(name)]
    found: dict[bytes, None] = {}  # in order, each once
    for path in [*_system(), *named]:
        found.update(dict.fromkeys(certificates(path)))
    kept = [certificate for certificate in found if leave_out not in certificate]
    if not kept:
        raise CertsError("No trust roots were found on this machine.", hint="Install the package ca-certificates, or set SSL_CERT_FILE to a file of roots.")
    return "".join(map(ssl.DER_cert_to_PEM_cert, kept)).encode()


def certificates(path: Path) -> list[bytes]:
    """The certificates in a PEM file, as DER; none where it cannot be read."""
    try:
        content = path.read_bytes()
    except OSError:
        return []
    found = []
    for block in _PEM.findall(content):
        try:
            found.append(ssl.PEM_cert_to_DER_cert(block.decode("ascii")))
        except ValueError:
            continue  # not base64: nobody else can read it either
    return found


def _system() -> list[Path]:
    """The file of the machine's own roots; where it has none, that of certifi, which most Python programs use anyway."""
    for name in (*_SYSTEM, ssl.get_default_verify_paths().openssl_cafile):
        if Path(name).is_file():
            return [Path(name)]
    try:
        import certifi
    except ImportError:
        return []
    return [Path(certifi.where())]
