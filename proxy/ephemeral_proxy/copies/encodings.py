"""Content codings beyond the standard library's, from the packages that mitmproxy brings along."""

from __future__ import annotations

from collections.abc import Callable

import brotli
import zstandard

from ephemeral.streams.encodings import LIMIT_BYTES, Decoder, TooLarge

_WINDOW_BYTES = 8 << 20
"""The most that RFC 9659 lets HTTP ask a recipient for."""

_SLICE = 256
"""Bytes of zstd decoded at a time: a block of four can stand for 128 KiB, so this bounds what one step makes."""


class _Brotli:
    def __init__(self) -> None:
        self._stream = brotli.Decompressor()
        self._left = LIMIT_BYTES

    def __call__(self, data: bytes) -> bytes:
        plain: bytes = self._stream.process(data, output_buffer_limit=self._left)
        self._left -= len(plain)
        if self._left <= 0 or not (self._stream.can_accept_more_data() or self._stream.is_finished()):
            raise TooLarge(f"a body decodes to more than {LIMIT_BYTES} bytes")
        return plain


class _Zstd:
    def __init__(self) -> None:
        self._stream = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES).decompressobj(read_across_frames=True)
        self._left = LIMIT_BYTES

    def __call__(self, data: bytes) -> bytes:
        plain: list[bytes] = []
        for start in range(0, len(data), _SLICE):
            piece = self._stream.decompress(data[start : start + _SLICE])
            self._left -= len(piece)
            if self._left < 0:
                raise TooLarge(f"a body decodes to more than {LIMIT_BYTES} bytes")
            plain.append(piece)
        return b"".join(plain)


DECODERS: dict[str, Callable[[], Decoder]] = {"br": _Brotli, "zstd": _Zstd}
