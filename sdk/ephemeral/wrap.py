"""``client = ephemeral.wrap(OpenAI())``: the client's conversations reach the predictor without the proxy.

The instance's class is exchanged for a subclass of it with nothing of its own but ``_prepare_request``, the hook that
openai's clients keep for subclasses. So ``isinstance`` holds, and ``with_options``, raw and streamed answers work as before.
The hook marks each Chat Completions request, and an event hook of the HTTP client puts a tee under the answer of a marked
one. Works with openai 2 (httpx) and 3 (httpx2), sync and async. Requests and answers are never altered.
"""

from __future__ import annotations

import atexit
import functools
import inspect
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from ephemeral import settings
from ephemeral.events import EventSink
from ephemeral.identity import SESSION_HEADER, session_id
from ephemeral.streams import apis
from ephemeral.streams.conversation import Conversations, Exchange
from ephemeral.streams.encodings import Decoder

Client = TypeVar("Client")

_session: ContextVar[str | None] = ContextVar("ephemeral_session", default=None)
_MARK = "ephemeral"  # key of the exchange in a request's extensions; HTTP clients ignore those they do not know


@contextmanager
def session(name: str) -> Iterator[str]:
    """Calls made inside belong to session ``name`` (hashed where it is no valid id). Yields the session's id."""
    identity = session_id(name)
    token = _session.set(identity)
    try:
        yield identity
    finally:
        _session.reset(token)


def wrap(client: Client) -> Client:
    """Let ``client`` (an ``openai.OpenAI`` or ``AsyncOpenAI``) report its conversations. Returns the same instance.

    Wrapping twice is wrapping once. Raises TypeError for something that is no such client.
    """
    kind: Any = type(client)
    if not hasattr(kind, "_ephemeral_wrapped"):
        if not (callable(getattr(client, "_prepare_request", None)) and hasattr(client, "chat")):
            raise TypeError(
                f"ephemeral.wrap takes an openai.OpenAI or AsyncOpenAI client, and this is a {kind.__name__}"
            )
        client.__class__ = _wrapped(kind)
    return client


@functools.cache
def _wrapped(kind: type) -> type:
    prepare: Callable[..., Any] = kind._prepare_request  # type: ignore[attr-defined]

    def prepare_sync(self: Any, request: Any) -> None:
        prepare(self, request)
        _mark(self._client, request, _on_response)

    async def prepare_async(self: Any, request: Any) -> None:
        await prepare(self, request)
        _mark(self._client, request, _on_response_async)

    override = prepare_async if inspect.iscoroutinefunction(prepare) else prepare_sync
    names = {"__slots__": (), "__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, (kind,), {**names, "_prepare_request": override, "_ephemeral_wrapped": True})


# ---------------------------------------------------------------------------------------------------- one request


def _mark(http: Any, request: Any, hook: Callable[[Any], Any]) -> None:
    """Report the request, and see to it that its answer will pass the tee."""
    try:
        path = request.url.path
        api = apis.find(request.method, path)
        if api is None:
            return
        if _is_our_proxy(request.url):  # it tees already; what it cannot know is the session
            if _session.get() and SESSION_HEADER not in request.headers:
                request.headers[SESSION_HEADER] = _session.get()
            return
        if hook not in http.event_hooks["response"]:
            http.event_hooks["response"].append(hook)
        exchange = _conversations().begin(api, path, request.headers, request.content, _session.get())
        if exchange is not None:
            request.extensions[_MARK] = exchange
    except Exception:  # nothing of ours may break a request
        _count_failure()


def _is_our_proxy(url: Any) -> bool:
    return url.host in ("127.0.0.1", "localhost", "::1") and url.port == settings.get("proxy_port")


def _on_response(response: Any) -> None:
    _tee(response, "SyncByteStream", _Tee)


async def _on_response_async(response: Any) -> None:
    _tee(response, "AsyncByteStream", _AsyncTee)


def _tee(response: Any, base: str, tee: type) -> None:
    try:
        exchange = response.request.extensions.get(_MARK)
        if exchange is not None and not response.has_redirect_location:  # what it leads to is the answer
            exchange.answer(response.status_code, response.headers)
            response.stream = _tee_class(type(response).__module__.partition(".")[0], base, tee)(
                response.stream, exchange
            )
    except Exception:
        _count_failure()


@functools.cache
def _tee_class(package: str, base: str, tee: type) -> type:
    """``tee`` as a byte stream of the HTTP client in use, httpx or httpx2: it only takes its own kind."""
    return type(tee.__name__, (tee, getattr(sys.modules[package], base)), {})


class _Tee:
    """The answer's bytes, still encoded, passed on untouched. An answer that is not read to its end counts as cut."""

    def __init__(self, stream: Any, exchange: Exchange) -> None:
        self._stream = stream
        self._exchange = exchange

    def __iter__(self) -> Iterator[bytes]:
        for data in self._stream:
            self._exchange.feed(data)
            yield data
        self._exchange.end()

    def close(self) -> None:
        self._exchange.end(cut=True)
        self._stream.close()


class _AsyncTee:
    def __init__(self, stream: Any, exchange: Exchange) -> None:
        self._stream = stream
        self._exchange = exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._stream:
            self._exchange.feed(data)
            yield data
        self._exchange.end()

    async def aclose(self) -> None:
        self._exchange.end(cut=True)
        await self._stream.aclose()


# ------------------------------------------------------------------------------------------------- one per process

_lock = threading.Lock()
_shared: Conversations | None = None


def _conversations() -> Conversations:
    """The process's memory and its way to the predictor, made at the first use."""
    global _shared
    with _lock:
        if _shared is None:
            sink = EventSink(f"unix:{settings.predictor_socket()}")
            atexit.register(sink.close)
            _shared = Conversations(sink.put, _decoders())
        return _shared


def _count_failure() -> None:
    if _shared is not None:
        _shared.failures += 1


def _decoders() -> Mapping[str, Callable[[], Decoder]]:
    """Codings that the HTTP client asks for when these packages are there; we read them by the same packages."""
    found: dict[str, Callable[[], Decoder]] = {}
    try:
        import brotli

        found["br"] = lambda: brotli.Decompressor().process
    except ImportError:
        pass
    try:
        import zstandard

        found["zstd"] = lambda: zstandard.ZstdDecompressor().decompressobj().decompress
    except ImportError:
        pass
    return found
