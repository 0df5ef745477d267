"""What the proxy has to reach, and what it reached of that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PEERS = {"mitmdump": 2.5, "litellm": 15.0}
"""Peer -> how many times its throughput ours should have."""
RATES = ("rps32", "rps256")


def ratios(result: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Peer -> rate -> how many times the peer's ours is, where both were measured."""
    found: dict[str, dict[str, float]] = {}
    for peer in PEERS:
        for rate in RATES:
            ours, theirs = _at(result, f"ephemeral.{rate}"), _at(result, f"{peer}.{rate}")
            if ours is not None and theirs:
                found.setdefault(peer, {})[rate] = round(ours / theirs, 2)
    return found


def goals(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """``{"measure", "value", "least" or "most", "met"}`` for each that was measured. Answers that failed are never a goal met."""
    failed = bool(_at(result, "ephemeral.failed"))
    compared = ratios(result)
    start, end = _at(result, "ephemeral.rss_mb_start"), _at(result, "ephemeral.rss_mb_end")
    checked, identical = _at(result, "byte_identical.checked"), _at(result, "byte_identical.identical")
    entries = [
        ("added_ttft_ms.p50", _at(result, "ephemeral.added_ttft_ms.p50"), "most", 2.0),
        ("added_ttft_ms.p99", _at(result, "ephemeral.added_ttft_ms.p99"), "most", 10.0),
        *((rate, _at(result, f"ephemeral.{rate}"), "least", 600.0) for rate in RATES),
        *((f"{rate} / {peer}.{rate}", compared.get(peer, {}).get(rate), "least", times) for peer, times in PEERS.items() for rate in RATES),
        ("rss_mb_end - rss_mb_start", None if start is None or end is None else round(end - start, 2), "most", 10.0),
        ("byte_identical", identical, "least", checked),
    ]
    return [{"measure": measure, "value": value, bound: limit, "met": not failed and (value <= limit if bound == "most" else value >= limit)}
            for measure, value, bound, limit in entries if value is not None]


def _at(result: Mapping[str, Any], name: str) -> Any:
    """None for what was not measured."""
    place: Any = result
    for part in name.split("."):
        place = place.get(part) if isinstance(place, Mapping) else None
    return place
