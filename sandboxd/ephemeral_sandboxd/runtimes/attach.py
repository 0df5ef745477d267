"""The engine's attach socket as a guest's channel: stdin raw, stdout and stderr in pieces with a header of eight bytes each."""

from __future__ import annotations

import asyncio
import socket
import struct

from ephemeral_sandboxd.runtimes.frames import READ_BUFFER_BYTES, Channel

HEADER = struct.Struct(">BxxxI")  # which stream, three bytes of nothing, length
STDOUT = 1
KEPT_WORDS_BYTES = 2000


class Attached(asyncio.StreamReaderProtocol):
    """Takes the two streams apart: stdout goes to the reader (which slows the engine down when it is full), of stderr the last
    words are kept: they say why a guest did not start."""

    def __init__(self, stdout: asyncio.StreamReader):
        super().__init__(stdout)
        self._stdout = stdout
        self._header = bytearray()
        self._stream = STDOUT
        self._left = 0
        self._words = bytearray()

    @property
    def words(self) -> str:
        return self._words.decode(errors="replace").strip()

    def data_received(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            if not self._left:
                missing = HEADER.size - len(self._header)
                self._header += rest[:missing]
                rest = rest[missing:]
                if len(self._header) == HEADER.size:
                    self._stream, self._left = HEADER.unpack(self._header)
                    self._header.clear()
                continue
            piece, rest = rest[: self._left], rest[self._left :]
            self._left -= len(piece)
            if self._stream == STDOUT:
                self._stdout.feed_data(bytes(piece))
            else:
                self._words = (self._words + piece)[-KEPT_WORDS_BYTES:]


async def open_channel(connection: socket.socket) -> tuple[Channel, Attached]:
    """Take over a hijacked connection on the running event loop. Nothing may have been said on it yet."""
    connection.setblocking(False)
    stdout = asyncio.StreamReader(limit=READ_BUFFER_BYTES)
    transport, attached = await asyncio.get_running_loop().connect_accepted_socket(lambda: Attached(stdout), connection)
    return Channel(stdout, transport, transport), attached
