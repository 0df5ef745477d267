"""Decoders for the copy of a body: bounded, incremental, and silent about garbage."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping

Decoder = Callable[[bytes], bytes]
"""Encoded piece in, plain piece out. Raises what it likes on garbage: the reader around it catches and counts."""

LIMIT_BYTES = 64 << 20
"""No body is decoded beyond this: a few kilobytes of gzip can stand for gigabytes."""


class TooLarge(ValueError):
    """A body decodes to more than LIMIT_BYTES."""


def decoder(content_encoding: str, others: Mapping[str, Callable[[], Decoder]] | None = None) -> Decoder | None:
    """A decoder for a ``Content-Encoding`` header, or None when one of its codings is unknown.

    ``gzip`` and ``deflate`` are built in; ``others`` adds factories for more (``br``, ``zstd``).
    """
    stages: list[Decoder] = []
    for name in reversed(content_encoding.lower().split(",")):  # the last coding was applied last
        name = name.strip()
        if name in ("", "identity"):
            continue
        if name in ("gzip", "x-gzip"):
            stages.append(_Inflate(31))
        elif name == "deflate":
            stages.append(_Deflate())
        elif others and name in others:
            stages.append(others[name]())
        else:
            return None
    if not stages:
        return _identity
    return stages[0] if len(stages) == 1 else _Chain(stages)


def _identity(data: bytes) -> bytes:
    return data


class _Chain:
    def __init__(self, stages: list[Decoder]) -> None:
        self._stages = stages

    def __call__(self, data: bytes) -> bytes:
        for stage in self._stages:
            data = stage(data)
        return data


class _Inflate:
    """zlib's streaming decompressor for one window size; a finished gzip member may be followed by another."""

    def __init__(self, window_bits: int) -> None:
        self._window_bits = window_bits
        self._stream = zlib.decompressobj(window_bits)
        self._left = LIMIT_BYTES

    def __call__(self, data: bytes) -> bytes:
        plain: list[bytes] = []
        while data:
            if self._stream.eof:
                self._stream = zlib.decompressobj(self._window_bits)
            piece = self._stream.decompress(data, self._left)
            self._left -= len(piece)
            if self._stream.unconsumed_tail or self._left <= 0:
                raise TooLarge(f"a body decodes to more than {LIMIT_BYTES} bytes")
            plain.append(piece)
            data = self._stream.unused_data
        return b"".join(plain)


class _Deflate:
    """``deflate`` means zlib's format, but some servers send the raw stream: the first byte tells."""

    def __init__(self) -> None:
        self._inflate: _Inflate | None = None

    def __call__(self, data: bytes) -> bytes:
        if not data:
            return b""
        if self._inflate is None:
            self._inflate = _Inflate(15 if data[0] & 0x0F == 8 else -15)
        return self._inflate(data)
