"""Frames to and from a guest: four bytes of length (big endian), then a JSON object.

The guest is untrusted: a frame that is too long, not JSON or not an object ends the conversation.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
from typing import Any

HEADER = struct.Struct(">I")
LARGEST_FRAME_BYTES = 64 << 20
READ_BUFFER_BYTES = 1 << 20


class BadFrame(Exception):
    """The guest sent something that is no frame of ours."""


class Channel:
    """Both directions of one guest's pipes, on the running event loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.WriteTransport, source: asyncio.BaseTransport):
        """``source`` is the transport that feeds ``reader``; it may be ``writer`` itself."""
        self._reader = reader
        self._writer = writer
        self._source = source

    @classmethod
    async def open(cls, read_fd: int, write_fd: int) -> Channel:
        """Take over two descriptors: our end of the guest's stdout, and of its stdin."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=READ_BUFFER_BYTES)
        source, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_fd, "rb", 0))
        writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(write_fd, "wb", 0))
        return cls(reader, writer, source)

    def send(self, frame: dict[str, Any]) -> None:
        body = json.dumps(frame).encode()
        self._writer.write(HEADER.pack(len(body)) + body)

    @property
    def unsent_bytes(self) -> int:
        """What the guest has not taken yet."""
        return self._writer.get_write_buffer_size()

    @property
    def ended(self) -> bool:
        """Whether the guest has closed its pipe, and all that it said was read."""
        return self._reader.at_eof()

    async def receive(self) -> dict[str, Any]:
        """The next frame. Raises EOFError when the guest is gone, BadFrame when it talks nonsense."""
        try:
            length = HEADER.unpack(await self._reader.readexactly(HEADER.size))[0]
            if length > LARGEST_FRAME_BYTES:
                raise BadFrame(f"a frame of {length} bytes (at most {LARGEST_FRAME_BYTES})")
            body = await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, OSError) as problem:
            raise EOFError("the guest closed its pipe") from problem
        try:
            frame = json.loads(body)
            # JSON can escape half a character; nothing that this text goes on to can hold one.
            if b"\\ud" in body.lower():
                json.dumps(frame, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as problem:
            raise BadFrame("not JSON") from problem
        if not isinstance(frame, dict):
            raise BadFrame("not an object")
        return frame

    def close(self) -> None:
        if not self._writer.is_closing():  # it closed itself if the guest went first
            self._writer.abort()
        self._source.close()  # it may be paused over what nobody will read, and would never see its end
