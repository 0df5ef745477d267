"""What the readers of all WebSocket protocols share: JSON messages that name their ``type``, of which few are worth reading."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from ephemeral.streams.conversation import Conversations

_PEEK_CHARACTERS = 512
# Members with plain strings, the first of all included, and then "type": so it is the top level's, whatever the rest says.
_TYPE = re.compile(r'\s*\{\s*(?:"[^"\\]*"\s*:\s*"[^"\\]*"\s*,\s*)*?"type"\s*:\s*"([^"\\]*)"\s*[,}]')


class Socket:
    """One connection, read as its messages pass: ``from_client`` and ``from_server`` with each text message, ``end`` once.

    ``headers`` are those of the request that was upgraded, ``path`` its path with query. ``at`` is when a message came (unix
    time; default now). Nothing here raises: what cannot be read is counted in ``conversations.failures``. What is kept is
    bounded, however long the connection lasts. One thread at a time.
    """

    CLIENT_TYPES: ClassVar[Collection[str]]
    SERVER_TYPES: ClassVar[Collection[str]]

    def __init__(self, conversations: Conversations, headers: Mapping[str, str], provider: str, path: str) -> None:
        self._conversations = conversations
        self._headers = {name.lower(): value for name, value in headers.items()}
        self._provider = provider
        self._path = path

    def from_client(self, text: str, at: float | None = None) -> None:
        try:
            message = _read(text, self.CLIENT_TYPES)
            if message:
                self._client(message, text, at)
        except Exception:  # a stranger's text: anything may be wrong with it, and nothing of it may reach the caller
            self._conversations.failures += 1

    def from_server(self, text: str, at: float | None = None) -> None:
        try:
            message = _read(text, self.SERVER_TYPES)
            if message:
                self._server(message, text, at)
        except Exception:
            self._conversations.failures += 1

    def end(self, at: float | None = None) -> None:
        """The connection is closed."""
        try:
            self._end(at)
        except Exception:
            self._conversations.failures += 1

    # ------------------------------------------------------------------------------------ what a protocol fills in

    def _client(self, message: dict[str, Any], text: str, at: float | None) -> None:
        """A message of one of ``CLIENT_TYPES``, and its text."""
        raise NotImplementedError

    def _server(self, message: dict[str, Any], text: str, at: float | None) -> None:
        """A message of one of ``SERVER_TYPES``, and its text."""
        raise NotImplementedError

    def _end(self, at: float | None) -> None:
        raise NotImplementedError


def _read(text: str, types: Collection[str]) -> dict[str, Any] | None:
    """The message if it is of one of ``types``. Audio and the like cost a look at their first characters."""
    seen = _TYPE.match(text, 0, _PEEK_CHARACTERS)
    if seen and seen[1] not in types:
        return None
    message = json.loads(text)
    kind = message.get("type") if isinstance(message, dict) else None
    return message if isinstance(kind, str) and kind in types else None
