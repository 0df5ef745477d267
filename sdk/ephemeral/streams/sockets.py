"""The WebSocket protocols that are read, told by the path that is upgraded."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Protocol

from ephemeral.streams.conversation import Conversations
from ephemeral.streams.realtime import RealtimeSocket
from ephemeral.streams.responses_socket import ResponsesSocket


class Socket(Protocol):
    """One connection, read as its messages pass (see ``socket_base.Socket``): never raises, and keeps little."""

    def from_client(self, text: str, at: float | None = None) -> None: ...

    def from_server(self, text: str, at: float | None = None) -> None: ...

    def end(self, at: float | None = None) -> None: ...


Factory = Callable[[Conversations, Mapping[str, str], str, str], Socket]
"""Makes a connection's reader of the conversations that it takes part in, the headers, the provider's name and the path of
the request that was upgraded."""

_SOCKETS: tuple[tuple[re.Pattern[str], Factory], ...] = (
    (re.compile(r".*/responses/?"), ResponsesSocket),
    (re.compile(r".*/realtime/?"), RealtimeSocket),
)


def find(path: str) -> Factory | None:
    """What reads the connections of ``path`` (with or without query), or None for one that is no conversation's."""
    path = path.partition("?")[0]
    return next((factory for pattern, factory in _SOCKETS if pattern.fullmatch(path)), None)
