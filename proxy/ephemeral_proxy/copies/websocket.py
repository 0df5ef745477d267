"""The messages in the two directions of a WebSocket, read from the bytes that passed."""

from __future__ import annotations

from collections.abc import Iterator

from wsproto.extensions import Extension, PerMessageDeflate
from wsproto.frame_protocol import FrameProtocol, Opcode

MESSAGE_LIMIT = 16 << 20
"""Characters of a text message; a longer one is left out."""


class Direction:
    """One direction. ``masked`` says that it is the client's; ``extensions`` is the answer's Sec-WebSocket-Extensions."""

    def __init__(self, masked: bool, extensions: str) -> None:
        agreed: list[Extension] = []
        offer = next((part.strip() for part in extensions.split(",") if "permessage-deflate" in part), "")
        if offer:
            deflate = PerMessageDeflate()
            if masked:
                deflate.accept(offer)
            else:
                deflate.finalize(offer)
            agreed.append(deflate)
        self._frames = FrameProtocol(client=not masked, extensions=agreed)
        self._text: list[str] = []
        self._length = 0

    def feed(self, data: bytes) -> Iterator[str]:
        """The text messages that ``data`` completes. Binary ones and control frames are left out. Raises on what is no
        WebSocket's bytes."""
        self._frames.receive_bytes(data)
        for frame in self._frames.received_frames():
            if frame.opcode is not Opcode.TEXT:
                continue
            self._length += len(frame.payload)
            if self._length <= MESSAGE_LIMIT:
                if frame.payload:
                    self._text.append(str(frame.payload))
            else:
                self._text.clear()
            if frame.message_finished:
                if self._length <= MESSAGE_LIMIT:
                    yield "".join(self._text)
                self._text.clear()
                self._length = 0
