"""One HTTP exchange with a provider into finished events: what the proxy and ``ephemeral.wrap`` both do with their copies.

``Conversations`` lives as long as its process. It makes an ``Exchange`` of each request worth reading; the caller feeds it
the answer's bytes. Nothing here raises: whatever goes wrong is counted in ``failures``, and that exchange goes silent.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping

from ephemeral.identity import Identity, app_of
from ephemeral.streams.chat_completions import AnswerReader, Event, RequestReader
from ephemeral.streams.encodings import Decoder, decoder

BODY_LIMIT_BYTES = 32 << 20
"""Requests larger than this pass unread: reading them would hold up others."""


def is_conversation(method: str, path: str) -> bool:
    """Whether a request is of a kind that is read: ``POST …/chat/completions``."""
    return method.upper() == "POST" and path.partition("?")[0].rstrip("/").endswith("/chat/completions")


class Conversations:
    """The memory that exchanges share, and where their events go.

    ``send`` takes each finished event (it must not block). ``decoders`` adds content codings to those of the standard
    library. Safe to use from several threads.
    """

    def __init__(
        self, send: Callable[[Event], None], decoders: Mapping[str, Callable[[], Decoder]] | None = None
    ) -> None:
        self.send = send
        self.failures = 0
        self._decoders = decoders
        self._identity = Identity()
        self._requests = RequestReader()
        self._lock = threading.Lock()

    def begin(self, headers: Mapping[str, str], body: bytes, session: str | None = None) -> Exchange | None:
        """Report a request's turn. None when its body cannot be read; ``session`` overrides what the request says."""
        try:
            said = {name.lower(): value for name, value in headers.items()}
            decode = decoder(said.get("content-encoding", ""), self._decoders)
            if decode is None or len(body) > BODY_LIMIT_BYTES:
                self.failures += 1
                return None
            request = json.loads(decode(body))
            if not isinstance(request, dict):
                self.failures += 1
                return None
            with self._lock:
                if session is None:
                    session, _ = self._identity.session_of(said, request)
                events = self._requests.read(session, request)
            exchange = Exchange(self, session, app_of(said))
            exchange.report(events)
            return exchange
        except Exception:  # a stranger's bytes: anything may be wrong with them, and nothing of it may reach the caller
            self.failures += 1
            return None

    def decoder_of(self, content_encoding: str) -> Decoder | None:
        return decoder(content_encoding, self._decoders)

    def answered(self, session: str, calls: list[str], text: str) -> None:
        with self._lock:
            self._identity.answered(session, calls, text)


class Exchange:
    """The answer to one request, fed as it comes: ``answer`` once, ``feed`` for each piece, ``end`` once."""

    def __init__(self, conversations: Conversations, session: str, app: str) -> None:
        self.session = session
        self._app = app
        self._conversations = conversations
        self._reader: AnswerReader | None = None
        self._decode: Decoder | None = None
        self._failed_answer = False
        self._over = False

    def answer(self, status: int, headers: Mapping[str, str]) -> None:
        """The answer's head has come."""
        try:
            said = {name.lower(): value for name, value in headers.items()}
            self._failed_answer = not 200 <= status < 300
            self._decode = self._conversations.decoder_of(said.get("content-encoding", ""))
            if self._decode is None:
                self._conversations.failures += 1
            elif not self._failed_answer:
                self._reader = AnswerReader(streamed=said.get("content-type", "").startswith("text/event-stream"))
        except Exception:
            self._fail()

    def feed(self, data: bytes) -> None:
        """The next bytes of the answer's body, still encoded as they were sent."""
        if self._reader is None or self._decode is None or self._over:
            return
        try:
            self.report(self._reader.feed(self._decode(data)))
        except Exception:
            self._fail()

    def end(self, cut: bool = False) -> None:
        """The answer is over (``cut``: the connection broke, or the caller stopped reading). Only the first call counts."""
        if self._over:
            return
        self._over = True
        try:
            if self._reader is None:
                self.report([{"kind": "turn_ended", "text": "error" if self._failed_answer else "cut"}])
                return
            self.report(self._reader.close(cut or self._decode is None))
            self._conversations.failures += self._reader.malformed
            self._conversations.answered(self.session, self._reader.calls, self._reader.text)
        except Exception:
            self._conversations.failures += 1

    def report(self, events: list[Event]) -> None:
        for event in events:
            self._conversations.send({**event, "session": self.session, "app": self._app, "at": time.time()})

    def _fail(self) -> None:
        self._conversations.failures += 1
        self._decode = None
