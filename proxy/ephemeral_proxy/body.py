"""Where the body of an HTTP/1 message ends, and what is in it. The bytes themselves pass as they came."""

from __future__ import annotations

import h11
from h11._readers import ChunkedReader  # what mitmproxy reads bodies with, too
from h11._receivebuffer import ReceiveBuffer

from ephemeral_proxy.head import CHUNKED, LIMIT_BYTES, UNTIL_CLOSE


class BodyError(ValueError):
    """The chunks of a body are malformed."""


class Body:
    """One body of a given ``length`` (see ``head``). ``done`` once its last byte was read."""

    def __init__(self, length: int) -> None:
        self.done = length == 0
        self._left = length
        self._chunks = ChunkedReader() if length == CHUNKED else None
        self._buffer = ReceiveBuffer()

    def feed(self, data: bytes) -> tuple[int, bytes]:
        """How many bytes of ``data`` belong to the body, and the content they carry. Raises BodyError."""
        if self._left == UNTIL_CLOSE:
            return len(data), data
        if self._chunks is None:
            mine = data if len(data) <= self._left else data[: self._left]
            self._left -= len(mine)
            self.done = self._left == 0
            return len(mine), mine
        self._buffer += data
        content: list[bytes] = []
        try:
            while (part := self._chunks(self._buffer)) is not None:
                if isinstance(part, h11.EndOfMessage):
                    self.done = True
                    return len(data) - len(self._buffer), b"".join(content)
                content.append(bytes(part.data))
        except h11.ProtocolError:
            raise BodyError("the chunks of a body are malformed") from None
        if len(self._buffer) > LIMIT_BYTES:
            raise BodyError("the head of a chunk, or what follows the last one, has no end")
        return len(data), b"".join(content)
