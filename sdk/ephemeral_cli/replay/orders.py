"""What we and the talking program say to each other. Apart from it, because that program's libraries take a second to import."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class Order(BaseModel):
    """A conversation to hold. ``session`` is sent as a header on both ways when it is set; ``wrapped_base_url`` is where
    the client goes, wrapped by ``ephemeral.wrap``, instead of through the proxy."""

    id: str
    messages: list[dict[str, Any]]
    model: str
    mcp: str
    session: str = ""
    wrapped_base_url: str = ""
    streamed: bool = True


class Outcome(BaseModel):
    """What came of it. ``codes`` is the code of each call, ``outputs`` the text that the tool answered to each, ``first_ms`` the
    time to the provider's first delta, ``error`` what broke the conversation off."""

    id: str
    codes: list[str] = []
    outputs: list[str] = []
    final: str = ""
    first_ms: float | None = None
    error: str = ""
