"""One HTTP exchange with a provider into finished events: what the proxy and ``ephemeral.wrap`` both do with their copies.

``Conversations`` lives as long as its process. It makes an ``Exchange`` of each request worth reading; the caller feeds it
the answer's bytes. Nothing here raises: whatever goes wrong is counted in ``failures``, and that exchange goes silent.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from ephemeral.identity import Identity, app_of
from ephemeral.streams.answer import AnswerReader
from ephemeral.streams.apis import Api
from ephemeral.streams.encodings import Decoder, decoder
from ephemeral.streams.turn import Event, Reported, Turn

_DELTAS = frozenset(("assistant_text", "reasoning_text", "code"))

BODY_LIMIT_BYTES = 32 << 20
"""Requests larger than this pass unread: reading them would hold up others."""


class Conversations:
    """The memory that exchanges share, and where their events go.

    ``send`` takes each finished event (it must not block). ``decoders`` adds content codings to those of the standard
    library. Safe to use from several threads.
    """

    def __init__(
        self,
        send: Callable[[Event], None],
        decoders: Mapping[str, Callable[[], Decoder]] | None = None,
        identity: Identity | None = None,
    ) -> None:
        self.send = send
        self.failures = 0
        self._decoders = decoders
        self._identity = identity or Identity()
        self._reported = Reported()
        self._lock = threading.Lock()

    def begin(
        self, api: Api, path: str, headers: Mapping[str, str], body: bytes, session: str | None = None, provider: str = "",
        at: float | None = None,
    ) -> Exchange | None:  # fmt: skip
        """Report a request's turn. None when its body cannot be read; ``session`` overrides what the request says. ``at`` is
        when the body had come (unix time; default now)."""
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
            return self.begin_turn(said, request, api.turn(request, path), api.answer, session, provider, at)
        except Exception:  # a stranger's bytes: anything may be wrong with them, and nothing of it may reach the caller
            self.failures += 1
            return None

    def begin_turn(
        self, headers: Mapping[str, str], request: Mapping[str, object], turn: Turn, reader: Callable[[str], AnswerReader],
        session: str | None = None, provider: str = "", at: float | None = None,
    ) -> Exchange:  # fmt: skip
        """The same for a request that was read already (a message of a WebSocket). ``headers`` by lower-case name."""
        with self._lock:
            if session is None:
                session, _ = self._identity.session_of(headers, request, turn)
            events = self._reported.events(session, turn)
        exchange = Exchange(self, session, app_of(headers), reader)
        events[0]["provider"] = provider
        exchange.report(events, at)
        return exchange

    def decoder_of(self, content_encoding: str) -> Decoder | None:
        return decoder(content_encoding, self._decoders)

    def answered(self, session: str, reader: AnswerReader) -> None:
        with self._lock:
            self._identity.answered(session, reader.marks)

    def failed(self, session: str, reader: AnswerReader | None = None) -> None:
        with self._lock:
            self._identity.failed(session, reader.marks if reader else ())


class Exchange:
    """The answer to one request, fed as it comes: ``answer`` once, ``feed`` for each piece, ``end`` once.

    ``at`` (unix time; default now) is when the bytes came, where they are read later than that.
    """

    def __init__(self, conversations: Conversations, session: str, app: str, reader: Callable[[str], AnswerReader]) -> None:
        self.session = session
        self._app = app
        self._conversations = conversations
        self._reader_for = reader
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
                self._reader = self._reader_for(said.get("content-type", "").strip().lower())
        except Exception:
            self._fail()

    def feed(self, data: bytes, at: float | None = None) -> None:
        """The next bytes of the answer's body, still encoded as they were sent."""
        if self._reader is None or self._decode is None or self._over:
            return
        try:
            self.report(self._reader.feed(self._decode(data)), at)
        except Exception:
            self._fail()

    def message(self, text: str, at: float | None = None) -> bool:
        """The next message of a WebSocket. Whether the turn is over with it."""
        if self._reader is None and not self._over:
            self._reader = self._reader_for("")
        if self._reader is None or self._over:
            return True
        try:
            self.report(self._reader.message(text), at)
            if not self._reader.ended:
                return False
        except Exception:
            self._fail()
        self.end(at=at)
        return True

    def end(self, cut: bool = False, at: float | None = None) -> None:
        """The answer is over (``cut``: the connection broke, or the caller stopped reading). Only the first call counts."""
        if self._over:
            return
        self._over = True
        try:
            if self._reader is None:
                self.report([{"kind": "turn_ended", "text": "error" if self._failed_answer else "cut"}], at)
                self._conversations.failed(self.session)
                return
            broke = cut and not self._reader.ended  # clients may close as soon as they have read the last message
            self.report(self._reader.close(cut or self._decode is None), at)
            self._conversations.failures += self._reader.malformed
            if broke or self._reader.malformed:
                self._conversations.failed(self.session, self._reader)
            else:
                self._conversations.answered(self.session, self._reader)
        except Exception:
            self._conversations.failures += 1

    def report(self, events: list[Event], at: float | None = None) -> None:
        at = time.time() if at is None else at
        for event in _merged(events):
            self._conversations.send({**event, "session": self.session, "app": self._app, "at": at})

    def _fail(self) -> None:
        self._conversations.failures += 1
        self._decode = None


def _merged(events: list[Event]) -> Iterator[Event]:
    """Deltas that came together are one: a provider may send tokens faster than anybody needs to hear of each."""
    waiting: Event | None = None
    for event in events:
        if waiting is not None:
            if event["kind"] == waiting["kind"] and event.get("call") == waiting.get("call"):
                waiting["text"] += event["text"]
                continue
            yield waiting
            waiting = None
        if event["kind"] in _DELTAS:
            waiting = dict(event)
        else:
            yield event
    if waiting is not None:
        yield waiting
