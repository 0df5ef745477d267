"""Where K2 is, and one question to it: HTTP, the streamed answer, what its errors mean.

Works with whatever speaks Chat Completions: K2's own API, its successor's, vLLM, and others like them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from time import time
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from ephemeral import settings
from ephemeral.streams.sse import SSEReader
from ephemeral_predictor.reasoned.answer import Answer
from ephemeral_predictor.reasoned.budget import Limits

_CONNECT_SECONDS = 5.0
_EVENT_BYTES = 1 << 20
_STREAM_BYTES = 16 << 20  # a token takes some 250 bytes of its stream
_ERROR_BYTES = 16 << 10
_RETRY_SECONDS = 0.5  # when the service names no other
_OVERLOADED = (429, 503, 529)
_OPTIONAL = ("reasoning_effort", "max_tokens", "temperature", "top_p")
"""Parameters that a compatible server may not know."""
_CHARACTERS_PER_TOKEN = 3.5


@dataclass(frozen=True)
class K2:
    """Where K2 is and how it is asked. ``deadline_seconds`` counts from the question, retries included; an ``effort`` of
    ``off`` is not sent. ``spending`` is the file that keeps what was spent; None keeps it in memory."""

    api_key: str = field(repr=False)
    base_url: str
    model: str
    effort: str
    deadline_seconds: float
    limits: Limits = field(default_factory=Limits)
    spending: Path | None = None

    @classmethod
    def from_settings(cls) -> K2 | None:
        """None without a key. Raises settings.SettingError that says what to write for a setting that is no good."""
        key = settings.get("k2_api_key").strip()
        if not key:
            return None
        if not re.fullmatch(r"[\x21-\x7e]+", key):
            raise settings.SettingError("EPHEMERAL_K2_API_KEY holds a space or a character that no key has: write the key alone")
        base_url = settings.get("k2_base_url").rstrip("/")
        address = urlsplit(base_url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise settings.SettingError(f"EPHEMERAL_K2_BASE_URL is {base_url!r}: write an address like https://api.k2think.ai/v1")
        if _is_our_proxy(base_url):
            raise settings.SettingError(f"EPHEMERAL_K2_BASE_URL is {base_url!r}, which is our own proxy: questions about conversations would be conversations. Write K2's address")
        limits = Limits(
            tokens_per_hour=settings.get("k2_tokens_per_hour"),
            money_per_day=settings.get("k2_money_per_day"),
            price_read=settings.get("k2_price_read"),
            price_written=settings.get("k2_price_written"),
        )
        if limits.money_per_day and not (limits.price_read or limits.price_written):
            raise settings.SettingError("EPHEMERAL_K2_MONEY_PER_DAY is set without prices: set EPHEMERAL_K2_PRICE_READ and EPHEMERAL_K2_PRICE_WRITTEN too")
        deadline = settings.get("k2_deadline_seconds")
        for name, value in (("K2_DEADLINE_SECONDS", deadline or -1), *((f"K2_{name.upper()}", value) for name, value in vars(limits).items())):
            if not 0 <= value < float("inf"):
                raise settings.SettingError(f"EPHEMERAL_{name} is {value:g}: it wants a number above 0")
        return cls(
            api_key=key,
            base_url=base_url,
            model=settings.get("k2_model"),
            effort=settings.get("k2_effort"),
            deadline_seconds=deadline,
            limits=limits,
            spending=settings.get("state") / "k2-spending.json",
        )


class Refused(Exception):
    """The service answered with an error. ``retry_after`` is in seconds; None when asking again would not help."""

    def __init__(self, status: int, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.message = message
        """The service's own words; may quote the request, so they are never logged."""
        self.retry_after = retry_after

    @property
    def is_sunset(self) -> bool:
        return self.status == 410

    @property
    def is_misconfigured(self) -> bool:
        """Whether it stays so until a setting or the service changes: the key, the address, the model's name."""
        names_model = "model" in self.message.lower() and "context length" not in self.message.lower()
        return self.status in (401, 403, 404) or 300 <= self.status < 400 or (self.status == 400 and names_model)


class Broken(Exception):
    """The connection could not be made, or broke."""


class Garbage(Exception):
    """What came is no answer at all."""


@dataclass
class Usage:
    """Tokens that a question took: as the service counts them where it says so, else estimated from the characters."""

    read: int = 0
    written: int = 0


def _is_our_proxy(url: str) -> bool:
    address = urlsplit(url)
    ours = (settings.get("proxy_port"), settings.get("intercept_port"))
    return address.hostname in ("127.0.0.1", "::1", "localhost") and address.port in ours


def _way_out(base_url: str) -> str | None:
    """The proxy that the environment names for K2's address: the way out of many networks. Never our own."""
    address = urlsplit(base_url)
    proxy = getproxies().get(address.scheme)
    if proxy is None or proxy_bypass(address.hostname or "") or _is_our_proxy(proxy):
        return None
    return proxy


def estimate(text: str) -> int:
    """Tokens of ``text``, rather too many than too few."""
    return int(len(text) / _CHARACTERS_PER_TOKEN) + 1


class Service:
    """One K2. Use it in an ``async with``."""

    def __init__(self, k2: K2) -> None:
        self._k2 = k2
        self._without: set[str] = set()  # optional parameters that this server refuses
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Service:
        self._http = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self._k2.api_key}", "Accept": "text/event-stream"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
            proxy=_way_out(self._k2.base_url),
        )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        if self._http:
            await self._http.close()

    async def ask(self, chat: list[dict[str, str]], max_tokens: int, answer: Answer, usage: Usage) -> None:
        """Feed ``answer`` until it is complete or the service has no more, or ``max_tokens`` came; leaving early closes the
        connection, so that the rest is neither generated nor paid for. Counts into ``usage`` whatever happens.

        Raises Refused, Broken or Garbage.
        """
        try:
            try:
                await self._ask(chat, max_tokens, answer, usage)
            except Refused as refused:
                if not self._adapt(refused):
                    raise
                await self._ask(chat, max_tokens, answer, usage)
        except (aiohttp.ClientError, OSError) as problem:
            if isinstance(problem, aiohttp.ClientConnectorError):
                usage.read = 0
            raise Broken(type(problem).__name__) from problem

    async def _ask(self, chat: list[dict[str, str]], max_tokens: int, answer: Answer, usage: Usage) -> None:
        assert self._http is not None
        body: dict[str, Any] = {"model": self._k2.model, "messages": chat, "stream": True}
        options = {"temperature": 1.0, "top_p": 1.0, "max_tokens": max_tokens, "reasoning_effort": self._k2.effort}
        if self._k2.effort == "off":
            del options["reasoning_effort"]
        body |= {name: value for name, value in options.items() if name not in self._without}
        usage.read = sum(estimate(message["content"]) for message in chat)
        # Never follow a redirect: it would take the conversation to where nobody said it may go.
        async with self._http.post(f"{self._k2.base_url}/chat/completions", json=body, allow_redirects=False) as response:
            if response.status != 200:
                usage.read = 0
                raise await _refusal(response)
            reading = _Reading(answer, usage, max_tokens)
            try:
                if response.content_type == "application/json":
                    reading.document(await _all(response))
                else:
                    await reading.stream(response)
            finally:
                usage.written = reading.written
                response.close()

    def _adapt(self, refused: Refused) -> bool:
        """Whether asking again without some parameter may help: one that the error names."""
        if refused.status not in (400, 422):
            return False
        named = {name for name in _OPTIONAL if name in refused.message} - self._without
        self._without |= named
        return bool(named)


class _Reading:
    """One answer on its way."""

    def __init__(self, answer: Answer, usage: Usage, max_tokens: int) -> None:
        self._answer = answer
        self._usage = usage
        self._max_tokens = max_tokens
        self._pieces = 0
        self._characters = 0
        self._counted = 0  # by the service

    @property
    def written(self) -> int:
        return self._counted or max(self._pieces, int(self._characters / _CHARACTERS_PER_TOKEN))

    async def stream(self, response: aiohttp.ClientResponse) -> None:
        reader = SSEReader(_EVENT_BYTES)
        received = events = 0
        async for data in response.content.iter_any():
            received += len(data)
            for event in reader.feed(data):
                events += 1
                if event.data == "[DONE]":
                    return
                self._take(_document(event.data))
                if self._answer.complete:
                    return
            if self.written >= self._max_tokens or received > _STREAM_BYTES:
                self._answer.cut = True
                return
        for event in reader.close():
            events += 1
            if event.data != "[DONE]":
                self._take(_document(event.data))
        if not events:
            raise Garbage("no event stream")

    def document(self, text: str) -> None:
        """An answer in one piece, of a server that does not stream."""
        self._take(_document(text))

    def _take(self, chunk: dict[str, Any]) -> None:
        if isinstance(error := chunk.get("error"), dict):
            code = error.get("code")
            raise Refused(code if isinstance(code, int) else 500, str(error.get("message", ""))[:1000], _RETRY_SECONDS if code in _OVERLOADED else None)
        if isinstance(usage := chunk.get("usage"), dict):
            read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
            self._usage.read = read if isinstance(read, int) and read > 0 else self._usage.read
            self._counted = written if isinstance(written, int) and written > 0 else self._counted
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return
        delta = choice.get("delta") or choice.get("message")
        if isinstance(delta, dict):
            content, reasoning = _text(delta, "content"), _text(delta, "reasoning") or _text(delta, "reasoning_content")
            self._pieces += bool(content or reasoning)
            self._characters += len(content) + len(reasoning)
            self._answer.feed(content, reasoning)
        if choice.get("finish_reason") == "length":
            self._answer.cut = True


def _text(delta: dict[str, Any], name: str) -> str:
    value = delta.get(name)
    return value if isinstance(value, str) else ""


def _document(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise Garbage("not JSON") from problem
    if not isinstance(document, dict):
        raise Garbage("no JSON object")
    return document


async def _all(response: aiohttp.ClientResponse, limit: int = _EVENT_BYTES) -> str:
    """The body, or its beginning where it is longer than ``limit``."""
    data = bytearray()
    async for piece in response.content.iter_any():
        data += piece
        if len(data) >= limit:
            break
    return data[:limit].decode("utf-8", "replace")


async def _refusal(response: aiohttp.ClientResponse) -> Refused:
    try:
        message = await _all(response, _ERROR_BYTES)
    except (aiohttp.ClientError, OSError):
        message = ""
    response.close()
    retry_after = _retry_after(response.headers.get("Retry-After", "")) if response.status in _OVERLOADED else None
    return Refused(response.status, message, retry_after)


def _retry_after(text: str) -> float:
    """Seconds that the service asks to wait, written as such or as a date."""
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time())
    except (ValueError, TypeError):
        return _RETRY_SECONDS
