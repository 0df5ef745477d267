"""The name in a TLS ClientHello, read without a TLS library: which server the client says it wants (RFC 8446, RFC 6066)."""

from __future__ import annotations

HANDSHAKE = 22
CLIENT_HELLO = 1
SERVER_NAME = 0
ENCRYPTED_HELLO = 0xFE0D
LARGEST_RECORD_BYTES = 1 << 14


class NotAHello(ValueError):
    """The bytes are no ClientHello that can be checked."""


def needed(data: bytes) -> int:
    """Bytes until the first record is whole, as far as ``data`` tells; at most 16 KiB + 5. Raises NotAHello."""
    if data[:1] and data[0] != HANDSHAKE:
        raise NotAHello("this is no TLS handshake")
    if len(data) < 5:
        return 5
    length = int.from_bytes(data[3:5])
    if length > LARGEST_RECORD_BYTES:
        raise NotAHello("its record is too long")
    return 5 + length


def server_name(record: bytes) -> str | None:
    """The server name of the ClientHello in ``record`` (one whole record); None when it names none.

    Raises NotAHello, also for what is read one way here and maybe another way by the server: two names, a hello spread over several records (no
    client sends one), a name that is encrypted.
    """
    body = _Reader(record[5:])
    if body.number(1) != CLIENT_HELLO:
        raise NotAHello("this is no ClientHello")
    hello = _Reader(body.take(body.number(3)))
    hello.take(2 + 32)
    hello.take(hello.number(1))
    hello.take(hello.number(2))
    hello.take(hello.number(1))
    if not hello.left:
        return None
    extensions = _Reader(hello.take(hello.number(2)))
    found = None
    while extensions.left:
        kind = extensions.number(2)
        content = _Reader(extensions.take(extensions.number(2)))
        if kind == ENCRYPTED_HELLO:
            raise NotAHello("its server name is encrypted (ECH) and cannot be checked")
        if kind == SERVER_NAME:
            if found is not None:
                raise NotAHello("it names two servers")
            found = _only_name(content)
    return found


def _only_name(content: _Reader) -> str:
    names = _Reader(content.take(content.number(2)))
    if names.number(1) != 0:
        raise NotAHello("its server name is of an unknown kind")
    name = names.take(names.number(2))
    if names.left or content.left:
        raise NotAHello("it names two servers")
    return name.decode("ascii", "replace")


class _Reader:
    def __init__(self, data: bytes):
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, length: int) -> bytes:
        if length > self.left:
            raise NotAHello("it is cut short")
        self._at += length
        return self._data[self._at - length:self._at]

    def number(self, length: int) -> int:
        return int.from_bytes(self.take(length))
