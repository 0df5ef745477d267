"""The fake providers: OpenAI, Anthropic, Gemini and Ollama, each a real HTTP/1.1 server on a port of its own.

``FakeProviders`` runs them in a thread. ``urls`` holds their base addresses (without ``/v1``), ``requests`` what came, as it
came, ``deserted`` how many streams their client left before the end. See ``answers`` for how a request steers its answer.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web
from multidict import CIMultiDict

from . import chat, errors, gemini, messages, ollama, realtime, resources, responses, sending
from .answers import Behaviour, Body

KEY = "sk-fake-0123456789"
"""What OpenAI, Anthropic and Gemini want to be told."""
PROVIDERS = ("openai", "anthropic", "gemini", "ollama")
DATE = "Tue, 24 Nov 2026 12:00:00 GMT"

_COMMON = {"Date": DATE, "X-Odd-CASING": "kept"}
_HEADERS: dict[str, list[tuple[str, str]]] = {
    "openai": [
        ("openai-organization", "org-fake"), ("openai-processing-ms", "12"), ("openai-version", "2020-10-01"),
        ("x-ratelimit-limit-requests", "500"), ("x-ratelimit-remaining-requests", "499"), ("x-request-id", "req_fake"),
        ("Set-Cookie", "__cf_bm=a; path=/; HttpOnly; Secure"), ("Set-Cookie", "_cfuvid=b; path=/; HttpOnly; Secure"),
    ],
    "anthropic": [("request-id", "req_fake"), ("anthropic-organization-id", "org-fake"), ("cf-cache-status", "DYNAMIC")],
    "gemini": [("Vary", "Origin"), ("Vary", "X-Origin"), ("Server", "scaffolding on HTTPServer2")],
    "ollama": [],
}  # fmt: skip


@dataclass
class Seen:
    """One request as it came. ``headers`` in their order and case; ``frames`` what a WebSocket's client sent on."""

    provider: str
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    frames: list[str] = field(default_factory=list)


class FakeProviders:
    """A context manager: the servers run while it is entered."""

    def __init__(self) -> None:
        self.requests: list[Seen] = []
        self.deserted = 0
        self._answering = 0
        self._changed = threading.Condition()
        self.urls: dict[str, str] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runners: list[web.AppRunner] = []

    def __enter__(self) -> FakeProviders:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(sending.PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(sending.PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(sending.PATIENCE)
        self._loop.close()

    def idle(self) -> bool:
        """Waits, for a bounded time, until no answer is under way. False when one still is."""
        with self._changed:
            return self._changed.wait_for(lambda: self._answering == 0, 2 * sending.PATIENCE)

    def answering(self, more: int) -> None:
        """Called by the servers: so many more answers, or fewer, are under way."""
        with self._changed:
            self._answering += more
            self._changed.notify_all()

    async def _start(self) -> None:
        for provider in PROVIDERS:
            app = web.Application(client_max_size=64 << 20)
            app.router.add_route("*", "/{path:.*}", _Provider(self, provider).handle)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, auto_decompress=False)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.urls[provider] = f"http://127.0.0.1:{runner.addresses[0][1]}"
            self._runners.append(runner)

    async def _stop(self) -> None:
        for runner in self._runners:
            await runner.cleanup()


class _Provider:
    """One provider's routes."""

    def __init__(self, providers: FakeProviders, name: str) -> None:
        self._all = providers
        self._name = name

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self._all.answering(1)
        try:
            return await self._handle(request)
        finally:
            self._all.answering(-1)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        raw = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers]
        seen = Seen(self._name, request.method, request.raw_path, raw, body)
        self._all.requests.append(seen)
        if not self._authorized(request):
            return self._error(request, 401, "Incorrect API key provided.")
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._socket(request, seen)
        try:
            plain = sending.decoded(body, request.headers.get("Content-Encoding", ""))
            said = json.loads(plain) if request.content_type == "application/json" and plain else {}
        except (KeyError, ValueError):
            return self._error(request, 400, "The body is not JSON in a known content coding.")
        return await getattr(self, f"_{self._name}")(request, request.path, said)

    def _authorized(self, request: web.Request) -> bool:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        keys = (
            given,
            request.headers.get("x-api-key"),
            request.headers.get("x-goog-api-key"),
            request.query.get("key"),
        )
        return self._name == "ollama" or KEY in keys

    async def _openai(self, request: web.Request, path: str, body: Body) -> web.StreamResponse:
        match request.method, path:
            case "POST", "/v1/chat/completions":
                end = b"data: [DONE]\n\n"
                return await self._answer(request, body, chat.whole, chat.events, sending.data_only, end=end)
            case "POST", "/v1/completions":
                whole, events = chat.whole_completion, chat.completion_events
                return await self._answer(request, body, whole, events, sending.data_only, end=b"data: [DONE]\n\n")
            case "POST", "/v1/responses":
                failed = responses.failed("The server had an error.")
                return await self._answer(request, body, responses.whole, responses.events, sending.named, failed)
            case "POST", "/v1/embeddings":
                return self._whole(request, body, resources.embeddings(body))
            case "GET", "/v1/models":
                return self._whole(request, {}, resources.models())
            case "POST", "/v1/files":
                return self._whole(request, {}, resources.file(request.headers["Content-Type"], await request.read()))
            case "GET", "/v1/files/file-fake/content":
                return self._bytes(request, resources.BINARY, "application/octet-stream")
            case "POST", "/v1/audio/speech":
                return self._bytes(request, resources.BINARY, "audio/mpeg")
        return self._error(request, 404, f"Unknown request URL: {request.method} {path}.")

    async def _anthropic(self, request: web.Request, path: str, body: Body) -> web.StreamResponse:
        match request.method, path:
            case "POST", "/v1/messages":
                failed = messages.failed("Overloaded")
                return await self._answer(request, body, messages.whole, messages.events, sending.named, failed)
            case "POST", "/v1/messages/count_tokens":
                return self._whole(request, body, messages.tokens(body))
            case "GET", "/v1/models":
                return self._whole(request, {}, resources.anthropic_models())
        return self._error(request, 404, "Not found")

    async def _gemini(self, request: web.Request, path: str, body: Body) -> web.StreamResponse:
        found = re.fullmatch(r"/v1(?:beta)?/models/?([^:]*):?(.*)", path)
        model, verb = found.groups() if found else ("", "unknown")
        steered = {**body, "model": model}
        match request.method, verb:
            case "POST", "generateContent":
                return self._whole(request, steered, gemini.whole(body, model))
            case "POST", "streamGenerateContent":
                events = gemini.events(body, model)
                failed = errors.error("gemini", 503, "The model is overloaded.")
                if request.query.get("alt") == "sse":
                    return await self._stream(request, steered, events, sending.crlf, failed, "text/event-stream")
                frame = sending.ArrayElements()
                return await self._stream(request, steered, events, frame, failed, "application/json", frame.end)
            case "POST", "batchEmbedContents":
                return self._whole(request, steered, gemini.embeddings(body))
            case "POST", "countTokens":
                return self._whole(request, steered, gemini.tokens(body))
            case "GET", "" if not model:
                return self._whole(request, {}, resources.gemini_models())
        return self._error(request, 404, "Requested entity was not found.")

    async def _ollama(self, request: web.Request, path: str, body: Body) -> web.StreamResponse:
        failed = errors.error("ollama", 500, "an error was encountered while running the model")
        body = {"stream": True, **body}
        match request.method, path:
            case "POST", "/api/chat":
                return await self._answer(request, body, ollama.whole, ollama.events, sending.line, failed)
            case "POST", "/api/generate":
                whole, events = ollama.whole_generated, ollama.generated_events
                return await self._answer(request, body, whole, events, sending.line, failed)
            case "POST", "/api/embed":
                return self._whole(request, body, ollama.embeddings(body))
            case "GET", "/api/tags":
                return self._whole(request, {}, ollama.tags())
        return self._error(request, 404, "not found")

    async def _answer(
        self, request: web.Request, body: Body, whole: Any, events: Any, frame: sending.Frame,
        failed: Body | None = None, end: bytes = b"",
    ) -> web.StreamResponse:  # fmt: skip
        """Streamed or in one piece, as ``body`` asks."""
        if not isinstance(body.get("model"), str):
            return self._error(request, 400, "you must provide a model parameter")
        if not body.get("stream"):
            return self._whole(request, body, whole(body))
        content_type = "application/x-ndjson" if frame is sending.line else "text/event-stream; charset=utf-8"
        failed = failed or errors.error("openai", 500, "The server had an error.")
        return await self._stream(request, body, events(body), frame, failed, content_type, end)

    async def _stream(
        self, request: web.Request, body: Body, events: Iterator[Body | None], frame: sending.Frame, failed: Body,
        content_type: str, end: bytes = b"",
    ) -> web.StreamResponse:  # fmt: skip
        behaviour = Behaviour.of(body["model"])
        if behaviour.status != 200:
            return self._error(request, behaviour.status, f"This model answers {behaviour.status}.", behaviour)
        stream = sending.Stream(request, behaviour, self._headers(), content_type)
        if not await stream.run(events, frame, failed, end):
            self._all.deserted += 1
        return stream.response

    def _whole(self, request: web.Request, body: Body, answer: Body) -> web.StreamResponse:
        behaviour = Behaviour.of(body.get("model"))
        if behaviour.status != 200:
            return self._error(request, behaviour.status, f"This model answers {behaviour.status}.", behaviour)
        return sending.whole(request, behaviour, sending.dumped(answer), 200, self._headers(), "application/json")

    def _bytes(self, request: web.Request, data: bytes, content_type: str) -> web.StreamResponse:
        return sending.whole(request, Behaviour(coding="identity"), data, 200, self._headers(), content_type)

    def _error(
        self, request: web.Request, status: int, message: str, behaviour: Behaviour | None = None
    ) -> web.StreamResponse:
        body = sending.dumped(errors.error(self._name, status, message))
        headers = self._headers()
        headers.extend(errors.headers(self._name, status))
        return sending.whole(request, behaviour or Behaviour(), body, status, headers, "application/json")

    def _headers(self) -> CIMultiDict[str]:
        return sending.header_list(_COMMON.items(), _HEADERS[self._name])

    async def _socket(self, request: web.Request, seen: Seen) -> web.StreamResponse:
        conversation = realtime.Conversation(request.query.get("model", ""))
        is_realtime = request.path == "/v1/realtime"
        if not is_realtime and request.path != "/v1/responses":
            return self._error(request, 404, f"Unknown request URL: {request.path}.")
        socket = web.WebSocketResponse()
        socket.headers.extend(self._headers())
        await socket.prepare(request)
        for event in conversation.begin() if is_realtime else ():
            await socket.send_str(sending.dumped(event).decode())
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                continue
            seen.frames.append(message.data)
            said = json.loads(message.data)
            answer = conversation.take(said) if is_realtime else _over_socket(said)
            for event in answer:
                await socket.send_str(sending.dumped(event).decode())
        return socket


def _over_socket(said: Body) -> Iterator[Body]:
    """The events that answer one message of a Responses WebSocket."""
    behaviour = Behaviour.of(said.get("model"))
    if said.get("type") != "response.create" or behaviour.status != 200:
        status = behaviour.status if behaviour.status != 200 else 400
        yield {"type": "error", "status": status, **errors.error("openai", status, f"This answers {status}.")}
        return
    yield from (event for event in responses.events(said) if event is not None)
