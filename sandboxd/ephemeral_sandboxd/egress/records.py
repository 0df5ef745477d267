"""What is written down of a connection: where it went and how much, never what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass
class EgressRecord:
    """One CONNECT or one HTTP request, handed over when it has ended. Paths, headers and bodies are not here: they may hold credentials.

    ``host`` is a host name or an address in normal form, empty where none could be made out. ``refused``: a rule of ours; ``failed``: the other end
    or the program. ``reason`` is one sentence, empty when all went well.
    """

    at: float
    host: str
    port: int
    scheme: Literal["http", "https"]
    verdict: Literal["allowed", "refused", "failed"] = "allowed"
    reason: str = ""
    bytes_up: int = 0
    bytes_down: int = 0
    duration_ms: float = 0.0


OnRecord = Callable[[EgressRecord], None]
