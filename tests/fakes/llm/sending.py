"""How an answer gets onto the wire: framing, content coding, and what goes wrong in the middle of a stream."""

from __future__ import annotations

import asyncio
import json
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import brotli
import zstandard
from aiohttp import web
from multidict import CIMultiDict

from .answers import CODINGS, Behaviour, Body

PATIENCE = 30.0
"""Seconds that a ``slow`` answer waits for its client to leave."""

Frame = Callable[[Body], bytes]


def dumped(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def data_only(event: Body) -> bytes:
    return b"data: " + dumped(event) + b"\n\n"


def named(event: Body) -> bytes:
    return b"event: " + event["type"].encode() + b"\ndata: " + dumped(event) + b"\n\n"


def crlf(event: Body) -> bytes:
    return b"data: " + dumped(event) + b"\r\n\r\n"


def line(event: Body) -> bytes:
    return dumped(event) + b"\n"


class ArrayElements:
    """The framing of a stream that is one JSON array. ``end`` closes it."""

    end = b"]"

    def __init__(self) -> None:
        self._before = b"["

    def __call__(self, event: Body) -> bytes:
        piece = self._before + json.dumps(event, ensure_ascii=False, indent=2).encode()
        self._before = b",\r\n"
        return piece


class _Zlib:
    def __init__(self, window_bits: int) -> None:
        self._stream = zlib.compressobj(wbits=window_bits)

    def piece(self, data: bytes) -> bytes:
        return self._stream.compress(data) + self._stream.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        return self._stream.flush()


class _Brotli:
    def __init__(self) -> None:
        self._stream: Any = brotli.Compressor()

    def piece(self, data: bytes) -> bytes:
        return self._stream.process(data) + self._stream.flush()

    def finish(self) -> bytes:
        return self._stream.finish()


class _Zstandard:
    def __init__(self) -> None:
        self._stream = zstandard.ZstdCompressor().compressobj()

    def piece(self, data: bytes) -> bytes:
        return self._stream.compress(data) + self._stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)

    def finish(self) -> bytes:
        return self._stream.flush()


class _Identity:
    def piece(self, data: bytes) -> bytes:
        return data

    def finish(self) -> bytes:
        return b""


_ENCODERS: dict[str, Callable[[], _Zlib | _Brotli | _Zstandard | _Identity]] = {
    "gzip": lambda: _Zlib(31), "deflate": lambda: _Zlib(15), "br": _Brotli, "zstd": _Zstandard, "identity": _Identity,
}  # fmt: skip
_DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: zlib.decompress(data, 31),
    "deflate": zlib.decompress,
    "br": brotli.decompress,
    "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}


def decoded(data: bytes, content_encoding: str) -> bytes:
    """A request's body without its content coding. KeyError for an unknown one."""
    return _DECODERS[content_encoding](data) if content_encoding else data


def header_list(*several: Iterable[tuple[str, str]]) -> CIMultiDict[str]:
    """Headers in order; a name may stand more than once."""
    return CIMultiDict([pair for pairs in several for pair in pairs])


def _coding(request: web.Request, wanted: str, otherwise: str) -> str:
    """The content coding of an answer: one that the client accepts, or none."""
    accepted = [one.split(";")[0].strip() for one in request.headers.get("Accept-Encoding", "").lower().split(",")]
    if wanted:
        return wanted if wanted in accepted else "identity"
    return next((one for one in CODINGS if one in accepted), "identity") if otherwise == "best" else otherwise


def _prepared(response: web.StreamResponse, content_type: str, coding: str) -> None:
    response.headers["Content-Type"] = content_type
    if coding != "identity":
        response.headers["Content-Encoding"] = coding


def whole(
    request: web.Request, behaviour: Behaviour, body: bytes, status: int, headers: Mapping[str, str], content_type: str
) -> web.Response:
    """An answer in one piece."""
    coding = _coding(request, behaviour.coding, "best")
    encoder = _ENCODERS[coding]()
    response = web.Response(status=status, headers=headers, body=encoder.piece(body) + encoder.finish())
    _prepared(response, content_type, coding)
    return response


class Stream:
    """A streamed answer. ``run`` says whether the client stayed to the end."""

    def __init__(
        self, request: web.Request, behaviour: Behaviour, headers: Mapping[str, str], content_type: str
    ) -> None:
        coding = _coding(request, behaviour.coding, "identity")
        self._request = request
        self._behaviour = behaviour
        self._encoder = _ENCODERS[coding]()
        self.response = web.StreamResponse(headers=headers)
        _prepared(self.response, content_type, coding)

    async def run(self, events: Iterator[Body | None], frame: Frame, failed: Body, end: bytes = b"") -> bool:
        await self.response.prepare(self._request)
        try:
            for event in events:
                if event is not None:
                    await self._send(frame(event))
                    continue
                match self._behaviour.middle:
                    case "cut":
                        assert self._request.transport
                        self._request.transport.abort()
                        return True
                    case "slow":
                        return not await self._deserted()
                    case "error":
                        await self._send(frame(failed))
                        break
            else:
                await self._send(end)
            await self._write(self._encoder.finish())
            await self.response.write_eof()
            return True
        except ConnectionError:
            return False

    async def _deserted(self) -> bool:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self._request.transport is None or self._request.transport.is_closing():
                return True
            await asyncio.sleep(0.01)
        return False

    async def _send(self, data: bytes) -> None:
        if data:
            await self._write(self._encoder.piece(data))

    async def _write(self, data: bytes) -> None:
        length = 7 if self._behaviour.shreds else len(data)
        for start in range(0, len(data), length or 1):
            await self.response.write(data[start : start + length])
