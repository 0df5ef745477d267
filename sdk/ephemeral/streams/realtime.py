"""OpenAI's Realtime over WebSocket, as documented now and as its beta was: the connection is the conversation."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar
from urllib.parse import parse_qs

from ephemeral.streams import responses
from ephemeral.streams.conversation import Conversations, Exchange
from ephemeral.streams.socket_base import Socket
from ephemeral.streams.turn import Message, Turn, objects, string

_EXCHANGES = 32
_HEARD_MESSAGES = 1024
_HEARD_CHARACTERS = 4 << 20
_TRANSCRIPT = "conversation.item.input_audio_transcription.completed"


class Answer(responses.Answer):
    """One response: its text or the transcript of its speech, and its calls."""

    def __init__(self) -> None:
        super().__init__(streamed=True)

    HANDLERS: ClassVar = {
        **responses.Answer.HANDLERS,
        "response.done": responses.Answer.HANDLERS["response.completed"],
        "response.output_audio_transcript.delta": responses.Answer.HANDLERS["response.output_text.delta"],
        "response.text.delta": responses.Answer.HANDLERS["response.output_text.delta"],  # the beta's
        "response.audio_transcript.delta": responses.Answer.HANDLERS["response.output_text.delta"],  # the beta's
    }
    TYPES: ClassVar = frozenset(HANDLERS)


class RealtimeSocket(Socket):
    """A response begins when the client asks for it, or when the server hears that the user has finished.

    All of them are in one session: the one that the headers name, else the server's own.
    """

    CLIENT_TYPES: ClassVar = frozenset({"session.update", "conversation.item.create", "response.create"})
    SERVER_TYPES: ClassVar = Answer.TYPES | {"session.created", "session.updated", _TRANSCRIPT}

    def __init__(self, conversations: Conversations, headers: Mapping[str, str], provider: str, path: str) -> None:
        super().__init__(conversations, headers, provider, path)
        self._session = ""  # the server's id of it
        self._model = next(iter(parse_qs(path.partition("?")[2]).get("model", ())), "")
        self._instructions = ""
        self._tools: tuple[str, ...] = ()
        self._heard: deque[Message] = deque(maxlen=_HEARD_MESSAGES)  # since the last turn began
        self._latest: Exchange | None = None
        self._previous = ""  # the id of the latest response
        self._waiting: OrderedDict[Exchange, str] = OrderedDict()  # asked for, and the id of the client's event
        self._running: OrderedDict[str, Exchange] = OrderedDict()  # by the response's id

    def _client(self, message: dict[str, Any], text: str, at: float | None) -> None:
        if message["type"] == "session.update":
            self._configure(message.get("session"))
        elif message["type"] == "conversation.item.create":
            self._hear(responses.messages(objects([message.get("item")])))
        else:
            self._waiting[self._begin(message.get("response"), at)] = responses.identity(message.get("event_id"))
            while len(self._waiting) > _EXCHANGES:
                self._waiting.popitem(last=False)[0].end(cut=True, at=at)

    def _server(self, message: dict[str, Any], text: str, at: float | None) -> None:
        kind = message["type"]
        if kind in ("session.created", "session.updated"):
            self._configure(message.get("session"))
        elif kind == _TRANSCRIPT:
            self._spoken(string(message.get("transcript")), at)
        elif kind == "error":
            self._refused(message, text, at)
        else:
            self._answer(message, text, at)

    # ----------------------------------------------------------------------------------------------- what is said

    def _configure(self, session: object) -> None:
        if not isinstance(session, dict):
            return
        self._session = self._session or responses.identity(session.get("id"))
        self._model = string(session.get("model")) or self._model
        if "instructions" in session:
            self._instructions = string(session["instructions"])
        if "tools" in session:
            self._tools = tuple(responses.tools(session["tools"]))

    def _hear(self, messages: Iterable[Message]) -> None:
        self._heard.extend(messages)
        while len(self._heard) > 1 and sum(len(message.text) for message in self._heard) > _HEARD_CHARACTERS:
            self._heard.popleft()

    def _spoken(self, text: str, at: float | None) -> None:
        """What the user said, as the server understood it: often it says so when the answer has long begun."""
        if self._latest is None:
            self._hear([Message("user", text)])
        elif text:
            self._latest.report([{"kind": "user_turn", "role": "user", "text": text}], at)

    def _begin(self, wished: object, at: float | None) -> Exchange:
        """A response begins. ``wished`` is what the client asked for this one alone."""
        turn = responses.turn(wished if isinstance(wished, dict) else {})
        said = list(turn.messages)
        if self._instructions and not any(message.role == "system" for message in said[:1]):
            said.insert(0, Message("system", self._instructions))
        turn = Turn(self._model, turn.tools or self._tools, (*said, *self._heard), self._previous)
        self._heard.clear()
        session = self._latest.session if self._latest else None
        self._latest = self._conversations.begin_turn(
            self._headers,
            {"conversation": self._session or None},
            turn,
            lambda _: Answer(),
            session,
            self._provider,
            at,
        )
        return self._latest

    # ------------------------------------------------------------------------------------------- what is answered

    def _answer(self, message: dict[str, Any], text: str, at: float | None) -> None:
        kind = message["type"]
        response = message.get("response")
        named = response.get("id") if isinstance(response, dict) else message.get("response_id")
        identity = responses.identity(named)
        if kind == "response.created":
            begun = self._waiting.popitem(last=False)[0] if self._waiting else self._begin(None, at)
            if identity in self._running:
                self._running.pop(identity).end(cut=True, at=at)
            self._running[identity] = begun
            self._previous = identity
            while len(self._running) > _EXCHANGES:
                self._running.popitem(last=False)[1].end(cut=True, at=at)
        exchange = self._running.get(identity)
        if exchange is not None and (exchange.message(text, at) or kind == "response.done"):
            exchange.end(at=at)
            del self._running[identity]

    def _refused(self, message: dict[str, Any], text: str, at: float | None) -> None:
        """Something the client sent was wrong. If it was its asking for a response, there will be none."""
        error = message.get("error")
        refused = responses.identity(error.get("event_id")) if isinstance(error, dict) else ""
        exchange = next((exchange for exchange, event in self._waiting.items() if event == refused), None)
        if exchange is not None:
            del self._waiting[exchange]
            exchange.message(text, at)
            exchange.end(at=at)

    def _end(self, at: float | None) -> None:
        for exchange in (*self._running.values(), *self._waiting):
            exchange.end(cut=True, at=at)
        self._running.clear()
        self._waiting.clear()
