"""OpenAI's Responses over WebSocket: requests one after another on a connection, their answers as the events they stream."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ephemeral.streams import responses
from ephemeral.streams.conversation import Conversations, Exchange
from ephemeral.streams.socket_base import Socket
from ephemeral.streams.turn import Turn, string

_EXCHANGES = 256
_ANSWERS = 32
_ENDS = ("response.completed", "response.incomplete", "response.failed", "error")


@dataclass(slots=True)
class _Lane:
    """What one ``stream_id`` asked: answered in order, one at a time."""

    waiting: deque[Exchange] = field(default_factory=deque)
    current: Exchange | None = None


class ResponsesSocket(Socket):
    CLIENT_TYPES: ClassVar = frozenset({"response.create", "response.steer"})
    SERVER_TYPES: ClassVar = responses.Answer.TYPES

    def __init__(self, conversations: Conversations, headers: Mapping[str, str], provider: str, path: str) -> None:
        super().__init__(conversations, headers, provider, path)
        self._lanes: OrderedDict[str, _Lane] = OrderedDict()
        self._answers: OrderedDict[str, Exchange] = OrderedDict()  # the latest, by the id of the answer

    def _client(self, message: dict[str, Any], text: str, at: float | None) -> None:
        if message["type"] == "response.steer":
            self._steer(message, at)
            return
        request = {name: value for name, value in message.items() if name not in ("type", "stream_id")}
        exchange = self._begin(request, responses.turn(request, self._path), None, at)
        self._lanes.setdefault(responses.identity(message.get("stream_id")), _Lane()).waiting.append(exchange)
        self._bound(at)

    def _steer(self, message: dict[str, Any], at: float | None) -> None:
        """The user speaks while the model does: heard at once, in the conversation of the answer that it steers."""
        steered = self._answers.get(responses.identity(message.get("previous_response_id")))
        if steered is not None:
            said = responses.turn({"input": message.get("input")}).messages
            texts = [message.text for message in said if message.role == "user" and message.text]
            steered.report([{"kind": "user_turn", "role": "user", "text": text} for text in texts], at)

    def _server(self, message: dict[str, Any], text: str, at: float | None) -> None:
        name = responses.identity(message.get("stream_id"))
        lane = self._lanes.get(name)
        kind = message["type"]
        if kind == "response.created":
            response = message.get("response")
            lane = self._created(lane or _Lane(), response if isinstance(response, dict) else {}, at)
            self._lanes[name] = lane
            self._bound(at)
        elif lane is None:
            return
        elif lane.current is None and kind == "error":  # the next request was refused before its answer began
            lane.current = lane.waiting.popleft()
        if lane.current is not None and (lane.current.message(text, at) or kind in _ENDS):
            lane.current.end(at=at)
            lane.current = None
            if not lane.waiting:
                self._lanes.pop(name, None)

    def _created(self, lane: _Lane, response: dict[str, Any], at: float | None) -> _Lane:
        """The answer to the next request of ``lane`` begins."""
        begun = lane.waiting.popleft() if lane.waiting else self._successor(response, at)
        if lane.current is not None:  # its end was not understood
            lane.current.end(cut=True, at=at)
        lane.current = self._answers[responses.identity(response.get("id"))] = begun
        while len(self._answers) > _ANSWERS:
            self._answers.popitem(last=False)
        return lane

    def _successor(self, response: dict[str, Any], at: float | None) -> Exchange:
        """An answer that nobody asked for by a request: the provider goes on where it was steered."""
        previous = responses.identity(response.get("previous_response_id"))
        steered = self._answers.get(previous)
        turn = Turn(model=string(response.get("model")), previous=previous)
        return self._begin({}, turn, steered.session if steered else None, at)

    def _begin(self, request: dict[str, Any], turn: Turn, session: str | None, at: float | None) -> Exchange:
        return self._conversations.begin_turn(
            self._headers, request, turn, lambda _: responses.Answer(streamed=True), session, self._provider, at
        )

    def _bound(self, at: float | None) -> None:
        """Keeps what waits for its answer to what a real connection could ask."""
        while sum(len(lane.waiting) + 1 for lane in self._lanes.values()) > _EXCHANGES:
            self._drop(self._lanes.popitem(last=False)[1], at)

    def _end(self, at: float | None) -> None:
        while self._lanes:
            self._drop(self._lanes.popitem(last=False)[1], at)

    @staticmethod
    def _drop(lane: _Lane, at: float | None) -> None:
        for exchange in (*([lane.current] if lane.current else []), *lane.waiting):
            exchange.end(cut=True, at=at)
