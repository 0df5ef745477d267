"""An invitation: all that another machine needs to reach a host, in one file that a one-time code opens.

The file travels by whatever way is at hand; the code goes by another (it is read out, or typed). The file is JSON: who it is for and until
when in the clear, but bound to the rest, which is AES-256-GCM under a key that scrypt makes of the code. The code has 80 random bits.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from dataclasses import asdict, dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from ephemeral_certs.errors import CertsError

VERSION = 1
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32: no I, L, O, U, so that a code survives being read out."""
_ALIKE = str.maketrans("ILO", "110")
_SCRYPT_N, _SCRYPT_R = 1 << 14, 8
MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Bundle:
    """What an invitation holds. Certificates and key are PEM texts."""

    address: str
    client: str
    ca: str
    certificate: str
    key: str
    token: str


def seal(bundle: Bundle, lifetime_seconds: float) -> tuple[bytes, str]:
    """(the file, the code that opens it), for so long."""
    digits = "".join(secrets.choice(ALPHABET) for _ in range(16))
    salt, nonce = secrets.token_bytes(16), secrets.token_bytes(12)
    header: dict[str, object] = {
        "ephemeral_invitation": VERSION, "address": bundle.address, "client": bundle.client,
        "expires_at": round(time.time() + lifetime_seconds), "salt": _text(salt), "nonce": _text(nonce),
    }  # fmt: skip
    sealed = AESGCM(_key(digits, salt)).encrypt(nonce, json.dumps(asdict(bundle)).encode(), _bound(header))
    content = json.dumps(header | {"sealed": _text(sealed)}, indent=1).encode() + b"\n"
    return content, "-".join(digits[at : at + 4] for at in range(0, 16, 4))


def unseal(content: bytes, code: str) -> Bundle:
    """Raises CertsError: no invitation, too old, or not this code's."""
    header = describe(content)
    if time.time() > float(str(header["expires_at"])):
        raise CertsError("This invitation is too old.", hint=_again(header))
    digits = "".join(sign for sign in code.upper().translate(_ALIKE) if sign in ALPHABET)
    try:
        sealed = base64.b64decode(str(header.pop("sealed")))
        salt, nonce = base64.b64decode(str(header["salt"])), base64.b64decode(str(header["nonce"]))
        opened = AESGCM(_key(digits, salt)).decrypt(nonce, sealed, _bound(header))
        return Bundle(**json.loads(opened))
    except InvalidTag:
        raise CertsError("The code does not open this invitation.", hint=f"Type it as it was shown (four groups of four). Lost? {_again(header)}") from None
    except (ValueError, TypeError, KeyError):
        raise CertsError("The invitation is damaged.", hint=_again(header)) from None


def describe(content: bytes) -> dict[str, object]:
    """What an invitation says without its code, as it stands in the file: ``address``, ``client``, ``expires_at``, … Raises CertsError."""
    try:
        if len(content) > MOST_BYTES:
            raise ValueError
        header = json.loads(content)
        if header["ephemeral_invitation"] != VERSION or not isinstance(header["expires_at"], int):
            raise ValueError
    except (ValueError, TypeError, KeyError):
        raise CertsError("The file is no invitation.", hint="On the host, type: ephemeral host invite NAME > NAME.invite") from None
    return dict(header)


def _again(header: dict[str, object]) -> str:
    return f"On the host, type: ephemeral host invite {header.get('client', 'NAME')}"


def _key(digits: str, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=_SCRYPT_N, r=_SCRYPT_R, p=1).derive(digits.encode())


def _bound(header: dict[str, object]) -> bytes:
    """The clear part as it is authenticated: one spelling, whatever the file's layout."""
    return json.dumps(header, sort_keys=True, separators=(",", ":")).encode()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
