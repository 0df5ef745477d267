"""The head of an HTTP/1 message: what it says, and how to change a line of it without touching the others.

The bytes are kept as they came. Parsers that the field uses give names and values and not the places they stood at, and
what is assembled from those is no longer what was sent: casing, spaces, order. Framing is read strictly in requests, for
what two readers of one request disagree about is what attacks are made of.
"""

from __future__ import annotations

import re
from collections.abc import Callable

LIMIT_BYTES = 256 << 10
"""No head is longer: servers of providers refuse 8 to 64 KB."""

_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([!-~\x80-\xff]+) HTTP/1\.([01])")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n\0]*)?")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*((?:[^\r\n\0]*[^\r\n\0 \t])?)[ \t]*")
_NUMBER = re.compile(r"[0-9]{1,18}")

CHUNKED = -1
"""The body comes in chunks."""
UNTIL_CLOSE = -2
"""The body ends with the connection."""


class HeadError(ValueError):
    """The bytes are no head that can be trusted. The message says why, without quoting them."""


class Head:
    """What both kinds have: ``lines`` (without their ends), and ``fields`` as (lower-case name, value) in order."""

    def __init__(self, raw: bytes) -> None:
        """``raw`` ends with the blank line. Raises HeadError."""
        self.lines = raw[:-4].split(b"\r\n")
        self.fields: list[tuple[str, str]] = []
        for line in self.lines[1:]:
            field = _FIELD.fullmatch(line)
            if field is None:
                raise HeadError("a header line is malformed")
            self.fields.append((field[1].decode("latin-1").lower(), field[2].decode("latin-1")))

    def all(self, name: str) -> list[str]:
        """The values of a header, by its lower-case name."""
        return [value for key, value in self.fields if key == name]

    def get(self, name: str) -> str:
        return next((value for key, value in self.fields if key == name), "")

    def tokens(self, name: str) -> set[str]:
        """The comma-separated words of a header, in lower case."""
        return {word.strip().lower() for value in self.all(name) for word in value.split(",")}

    def _length(self) -> int | None:
        """CHUNKED, a Content-Length, or None when nothing is said. Raises HeadError where it is not plain."""
        codings, lengths = self.all("transfer-encoding"), self.all("content-length")
        if codings:
            if lengths or len(codings) > 1 or codings[0].lower() != "chunked":
                raise HeadError("its framing is ambiguous: one Transfer-Encoding, chunked, or one Content-Length")
            return CHUNKED
        if not lengths:
            return None
        if len(set(lengths)) > 1 or not _NUMBER.fullmatch(lengths[0]):
            raise HeadError("its Content-Length is no number, or there are several")
        return int(lengths[0])


class RequestHead(Head):
    """``method``, ``target`` as sent, ``length`` of the body: bytes, or CHUNKED."""

    def __init__(self, raw: bytes) -> None:
        super().__init__(raw)
        line = _REQUEST_LINE.fullmatch(self.lines[0])
        if line is None:
            raise HeadError("its first line is no request line of HTTP/1")
        self.method = line[1].decode("ascii")
        self.target = line[2].decode("latin-1")
        self.minor = line[3]
        if len(self.all("content-length")) > 1:
            raise HeadError("there are several Content-Length headers")
        self.length = self._length() or 0
        if self.length == CHUNKED and self.minor == b"0":
            raise HeadError("HTTP/1.0 knows no Transfer-Encoding")
        self.upgrades = "upgrade" in self.tokens("connection") and bool(self.get("upgrade"))

    def forwarded(self, target: str, host: str, ours: Callable[[str], bool]) -> bytes:
        """The head as the provider gets it: another target and Host, and without the headers that ``ours`` picks by their
        lower-case name. Everything else is what came."""
        lines = [b"%s %s HTTP/1.%s" % (self.method.encode(), target.encode("latin-1"), self.minor)]
        for line, (name, value) in zip(self.lines[1:], self.fields, strict=True):
            if ours(name):
                continue
            if name == "host":
                kept, old = line, value.encode("latin-1")
                before, _, after = kept[5:].partition(old) if old else (kept[5:], b"", b"")
                line = line[:5] + before + host.encode("latin-1") + after
            lines.append(line)
        return b"\r\n".join(lines) + b"\r\n\r\n"


class ResponseHead(Head):
    """``status``, and ``length`` of the body in answer to ``method``: bytes, CHUNKED or UNTIL_CLOSE."""

    def __init__(self, raw: bytes, method: str) -> None:
        super().__init__(raw)
        line = _STATUS_LINE.fullmatch(self.lines[0])
        if line is None:
            raise HeadError("its first line is no status line of HTTP/1")
        self.status = int(line[1])
        self.interim = 100 <= self.status < 200 and self.status != 101
        if method == "HEAD" or 100 <= self.status < 200 or self.status in (204, 304):
            self.length = 0
        else:
            length = self._length()
            self.length = UNTIL_CLOSE if length is None else length
