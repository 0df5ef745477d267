"""What became of the questions to K2 in a house, as the predictor tells it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx

from ephemeral import wire
from ephemeral.client import AsyncClient

ANSWERED = ("answered", "kept", "refused")
"""Outcomes with an answer that could be read: a decision, none needed, or one that policy did not let through."""
FAILED = ("late", "failed", "unreadable")
SPARED = ("remembered", "skipped", "over_budget")
"""Not asked at all."""
PREDICTOR_SECONDS = 5.0


async def calls(sandboxd: AsyncClient, predictor: Path, sessions: Iterable[wire.Session]) -> dict[str, Any]:
    """``asked``, ``answered``, ``failed``, ``unanswered`` (nobody waited any longer, or it was still thinking), ``plans`` that came of it, ``outcomes`` by
    their names, ``spared`` and ``tokens``. ``predictor`` is its Unix socket.

    Counted are the questions of ``sessions`` as their timelines have them, and the outcomes as the predictor has counted them since its start.
    """
    asked = plans = 0
    for session in sessions:
        moments = await sandboxd.moments(session.id)
        asked += sum(moment.kind == "k2_prompt" and moment.data.get("part", 1) == 1 for moment in moments.items)
        plans += sum(record.plan.proposer == "k2" for record in (await sandboxd.plans(session.id)).items)
    counts = await _counts(predictor)
    outcomes = {name: counts[name] for name in (*ANSWERED, *FAILED) if counts.get(name)}
    answered, failed = (sum(counts.get(name, 0) for name in among) for among in (ANSWERED, FAILED))
    asked = max(asked, answered + failed)  # a timeline may have lost a moment, the predictor's own count has not
    return {
        "asked": asked, "answered": answered, "failed": failed, "unanswered": asked - answered - failed, "plans": plans, "outcomes": outcomes,
        "spared": {name: counts[name] for name in SPARED if counts.get(name)}, "tokens": counts.get("tokens_last_hour", 0),
    }


async def _counts(predictor: Path) -> dict[str, int]:
    """Empty when the predictor does not answer, or asks nobody."""
    try:
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(predictor)), timeout=PREDICTOR_SECONDS, trust_env=False) as client:
            told = (await client.get("http://localhost/healthz")).json().get("k2") or {}
    except (httpx.HTTPError, OSError, ValueError, AttributeError):
        return {}
    return {name: value for name, value in told.items() if isinstance(value, int)}
