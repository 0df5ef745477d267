"""The copy: bytes of each conversation go by untouched, and the same bytes go to the readers that make events of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from mitmproxy import http

from ephemeral.streams.conversation import BODY_LIMIT_BYTES, Conversations, Exchange, is_conversation

_KEY = "ephemeral"


class Tee:
    """Hangs a ``Copy`` on each request that belongs to a conversation. Streams every body, so that none is ever held."""

    def __init__(self, conversations: Conversations) -> None:
        self._conversations = conversations

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        if flow.response:  # refused
            return
        flow.request.stream = True
        if is_conversation(flow.request.method, flow.request.path):
            copy = flow.metadata[_KEY] = Copy(self._conversations, dict(flow.request.headers.items()))
            flow.request.stream = copy.request

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        if flow.response is None:
            return
        flow.response.stream = True
        copy: Copy | None = flow.metadata.get(_KEY)
        if copy:
            copy.begin()
            if copy.exchange:
                copy.exchange.answer(flow.response.status_code, dict(flow.response.headers.items()))
                flow.response.stream = copy.response

    def response(self, flow: http.HTTPFlow) -> None:
        self._end(flow, cut=False)

    def error(self, flow: http.HTTPFlow) -> None:
        self._end(flow, cut=True)

    def websocket_message(self, flow: http.HTTPFlow) -> None:
        """mitmproxy keeps every message of a WebSocket for as long as it is open."""
        if flow.websocket:
            flow.websocket.messages.clear()

    def _end(self, flow: http.HTTPFlow, cut: bool) -> None:
        copy: Copy | None = flow.metadata.pop(_KEY, None)
        if copy:
            copy.end(cut)


class Copy:
    """Both directions of one request. What the callables return is what they were given, always."""

    def __init__(self, conversations: Conversations, headers: Mapping[str, str]) -> None:
        self.exchange: Exchange | None = None
        self._conversations = conversations
        self._headers = headers
        self._body: bytearray | None = bytearray()

    def request(self, data: bytes) -> bytes:
        """mitmproxy's stream callback for the request's body; the empty piece is its end."""
        try:
            if data and self._body is not None:
                self._body += data
                if len(self._body) > BODY_LIMIT_BYTES:
                    self._body = None
                    self._conversations.failures += 1
            elif not data:
                # Reading it takes milliseconds when it is long: first let the loop send it on its way.
                asyncio.get_running_loop().call_soon(self.begin)
        except Exception:
            self._conversations.failures += 1
        return data

    def begin(self) -> None:
        """Read the request, once."""
        if self._body is not None:
            body, self._body = bytes(self._body), None
            self.exchange = self._conversations.begin(self._headers, body)

    def response(self, data: bytes) -> bytes:
        """mitmproxy's stream callback for the answer's body."""
        if data and self.exchange:
            self.exchange.feed(data)
        return data

    def end(self, cut: bool) -> None:
        """The answer is over, or will not come: a request that was not read yet need not be any more."""
        self._body = None
        if self.exchange:
            self.exchange.end(cut)
