"""The provider that requests go to, as read from the setting ``upstream``."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit


class UpstreamError(ValueError):
    """The setting does not name a provider. The message says what to write instead."""


@dataclass(frozen=True)
class Upstream:
    """``base`` is the path that ``/v1`` hangs under: empty, or ``/api`` for ``https://openrouter.ai/api``."""

    scheme: str
    host: str
    port: int
    base: str = ""

    @classmethod
    def parse(cls, text: str) -> Upstream:
        """Reads ``http(s)://host[:port][/base]``; a ``/v1`` at the end is the one that requests bring along anyway."""
        wanted = "write a scheme and a host, for example https://api.openai.com"
        try:
            parts = urlsplit(text.strip())
            port = parts.port
        except ValueError as error:
            raise UpstreamError(f"EPHEMERAL_UPSTREAM is {text!r}: {error}; {wanted}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UpstreamError(f"EPHEMERAL_UPSTREAM is {text!r}: {wanted}")
        if parts.username is not None or parts.query or parts.fragment:
            raise UpstreamError(f"EPHEMERAL_UPSTREAM holds more than an address: {wanted}")
        base = parts.path.rstrip("/").removesuffix("/v1")
        return cls(parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80), base)

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"{self._bracketed}:{self.port}"

    @property
    def authority(self) -> str:
        """The Host header of a request sent there: no port where it is the scheme's own."""
        return self._bracketed if self.port == (443 if self.scheme == "https" else 80) else self.address

    @property
    def _bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host
