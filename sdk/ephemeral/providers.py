"""The providers that the proxy knows: their names, where each is, and which of them also have a port of their own.

Read from the settings ``upstream``, ``upstreams`` and ``proxy_ports`` and from nothing else: no request can name a place to go.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from ephemeral import settings

OPENAI = "openai"
"""The provider that is reached at ``/v1`` too. Its address is the setting ``upstream``."""
KNOWN = {
    "anthropic": "https://api.anthropic.com",
    "gemini": "https://generativelanguage.googleapis.com",
    "ollama": "http://127.0.0.1:11434",
    "openrouter": "https://openrouter.ai/api",
}
"""Known without being configured; ``upstreams`` adds to them or gives one another address."""
RESERVED = ("v1", "healthz", "proxy", "intercept")
"""First parts of paths, and names of sockets, that mean something else to the proxy."""

_NAME = re.compile(r"[a-z][a-z0-9-]*")
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*\.?")
_SCHEME_PORTS = {"http": 80, "https": 443}


class ProviderError(ValueError):
    """A setting that names no provider, or no port for one. The message names the variable and says what to write."""


@dataclass(frozen=True)
class Provider:
    """``base`` is the path that a request's own path is appended to: empty, or ``/api`` for ``https://openrouter.ai/api``."""

    name: str
    scheme: str
    host: str
    port: int
    base: str = ""

    @classmethod
    def parse(cls, name: str, url: str) -> Provider:
        """Reads ``http(s)://host[:port][/base]``. Requests to openai bring their ``/v1`` along: one at the end of its URL is the same."""
        variable, example = _variable(name)
        wanted = f"write a scheme and a host, for example {example}"
        more = ProviderError(f"{variable} holds more than an address: {wanted}")
        text = url.strip()
        if "@" in text:  # first of all: what follows quotes the text, and this is a credential
            raise more
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as error:
            raise ProviderError(f"{variable} is {url!r}: {error}; {wanted}") from None
        if parts.scheme not in _SCHEME_PORTS or not parts.hostname or port == 0 or not _is_host(parts.hostname):
            raise ProviderError(f"{variable} is {url!r}: {wanted}")
        if parts.query or parts.fragment or not text.isascii() or not text.isprintable() or " " in text:
            raise more
        base = parts.path.rstrip("/")
        return cls(name, parts.scheme, parts.hostname, port or _SCHEME_PORTS[parts.scheme], base.removesuffix("/v1") if name == OPENAI else base)

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"{self._bracketed}:{self.port}"

    @property
    def authority(self) -> str:
        """The Host header of a request sent there: no port where it is the scheme's own."""
        return self._bracketed if self.port == _SCHEME_PORTS[self.scheme] else self.address

    @property
    def url(self) -> str:
        """As it may be written in the settings."""
        return f"{self.scheme}://{self.authority}{self.base}"

    @property
    def _bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


def configured() -> dict[str, Provider]:
    """All providers by name, openai first. Raises ProviderError."""
    found = {OPENAI: Provider.parse(OPENAI, settings.get("upstream"))}
    urls = dict(KNOWN)
    seen = set()
    for name, url in _pairs("upstreams", "NAME=URL", "vllm=http://127.0.0.1:8000"):
        if name == OPENAI:
            raise ProviderError("EPHEMERAL_UPSTREAMS names openai, whose address is a variable of its own: write EPHEMERAL_UPSTREAM=URL")
        if name in RESERVED or not _NAME.fullmatch(name):
            raise ProviderError(
                f"EPHEMERAL_UPSTREAMS names {name!r}: a name is lower-case letters, digits and dashes, begins with a letter, and is not "
                f"{' or '.join(RESERVED)}; write for example vllm=http://127.0.0.1:8000"
            )
        if name in seen:
            raise ProviderError(f"EPHEMERAL_UPSTREAMS names {name} twice: write one NAME=URL for each provider")
        seen.add(name)
        urls[name] = url
    return found | {name: Provider.parse(name, url) for name, url in urls.items()}


def ports() -> dict[str, int]:
    """The providers that have a port of their own on 127.0.0.1: name -> port. Raises ProviderError."""
    known = configured()
    found: dict[str, int] = {}
    taken = {settings.get("proxy_port"): "EPHEMERAL_PROXY_PORT", settings.get("intercept_port"): "EPHEMERAL_INTERCEPT_PORT"}
    for name, text in _pairs("proxy_ports", "NAME=PORT", "anthropic=8791"):
        if name not in known:
            raise ProviderError(f"EPHEMERAL_PROXY_PORTS names {name!r}, which is no provider: write one of {', '.join(known)}, or add it to EPHEMERAL_UPSTREAMS")
        if name in found:
            raise ProviderError(f"EPHEMERAL_PROXY_PORTS names {name} twice: write one NAME=PORT for each provider")
        if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 65536:
            raise ProviderError(f"EPHEMERAL_PROXY_PORTS gives {name} the port {text!r}: write a number from 1 to 65535, for example {name}=8791")
        port = int(text)
        if port in taken:
            raise ProviderError(f"EPHEMERAL_PROXY_PORTS gives {name} the port {port}, which is {taken[port]}'s: write another, for example {name}={_next_free(port, taken)}")
        taken[port] = name
        found[name] = port
    return found


def _pairs(setting: str, form: str, example: str) -> Iterator[tuple[str, str]]:
    """The ``NAME=VALUE`` of a setting that lists them, separated by spaces."""
    for number, word in enumerate(settings.get(setting).split(), 1):
        name, equals, value = word.partition("=")
        if not (name and equals and value):
            # Not the word itself: a URL on its own may hold a credential.
            raise ProviderError(f"EPHEMERAL_{setting.upper()} is not a list of {form}: its entry {number} is none; write for example {example}")
        yield name, value


def _variable(name: str) -> tuple[str, str]:
    """How a message calls the address of ``name``, and an example of one."""
    if name == OPENAI:
        return "EPHEMERAL_UPSTREAM", "https://api.openai.com"
    return f"{name} in EPHEMERAL_UPSTREAMS", f"{name}={KNOWN.get(name, 'https://llm.example.com')}"


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return _HOST.fullmatch(host) is not None
    return True


def _next_free(port: int, taken: dict[int, str]) -> int:
    return next(number for number in [*range(port + 1, 65536), *range(port - 1, 0, -1)] if number not in taken)
