"""What a worker tells the reader: frames, several to a packet of a SEQPACKET socket, which keeps packets whole.

A frame is a kind, the exchange it is about, its number within that exchange (a gap shows that frames were dropped), the
time, and a payload. A packet can be read without the ones before it, so either side may die and come back.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, NamedTuple

PACKET_BYTES = 64 << 10
"""Payload of one packet at most: the kernel's default send buffer holds three."""

_HEADER = struct.Struct("<BIQdI")  # kind, number, exchange, unix time, length of the payload
_PIECE_BYTES = PACKET_BYTES - _HEADER.size


class Kind(IntEnum):
    """What the payload is. JSON where it says so, else bytes as they passed."""

    HELLO = 0  # the worker has just started: what was open has no end any more
    BEGIN = 1  # JSON: method, path, provider, headers
    REQUEST = 2  # a piece of the request's body
    REQUEST_END = 3
    ANSWER = 4  # JSON: status, headers
    RESPONSE = 5  # a piece of the answer's body
    FROM_CLIENT = 6  # after an upgrade: bytes of the connection
    FROM_SERVER = 7
    END = 8
    CUT = 9  # the connection broke


class Frame(NamedTuple):
    """``at`` is unix time."""

    kind: Kind
    number: int
    exchange: int
    at: float
    payload: bytes


def pack(kind: Kind, number: int, exchange: int, at: float, payload: bytes) -> list[bytes]:
    """The frames for ``payload``, which is cut where it is longer than a packet. Numbers count up from ``number``."""
    if len(payload) <= _PIECE_BYTES:
        return [_HEADER.pack(kind, number, exchange, at, len(payload)) + payload]
    pieces = [payload[start : start + _PIECE_BYTES] for start in range(0, len(payload), _PIECE_BYTES)]
    return [
        _HEADER.pack(kind, number + position, exchange, at, len(piece)) + piece for position, piece in enumerate(pieces)
    ]


def pack_json(kind: Kind, number: int, exchange: int, at: float, content: dict[str, Any]) -> list[bytes]:
    """The same for JSON, which is never cut: headers beyond a packet are left out."""
    text = json.dumps(content).encode()
    if len(text) > _PIECE_BYTES:
        text = json.dumps({**content, "headers": {}, "path": content.get("path", "")[:1000]}).encode()
    return pack(kind, number, exchange, at, text)


def exchange_of(frame: bytes) -> int:
    """The exchange that a packed frame is about; 0 for HELLO."""
    exchange: int = _HEADER.unpack_from(frame)[2]
    return exchange


def unpack(packet: bytes) -> Iterator[Frame]:
    """The frames of a packet. Raises ValueError for bytes that are none."""
    position = 0
    while position < len(packet):
        try:
            kind, number, exchange, at, length = _HEADER.unpack_from(packet, position)
        except struct.error:
            raise ValueError("a packet ends within a frame's header") from None
        position += _HEADER.size
        payload = packet[position : position + length]
        if len(payload) < length:
            raise ValueError("a packet ends within a frame")
        position += length
        yield Frame(Kind(kind), number, exchange, at, payload)
