"""How much memory a sandbox should have: by what such code took before, and by the data that the conversation speaks of. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice

from ephemeral import settings

OF_DATA = 5
"""Bytes of memory for a byte of data. Wes McKinney, who wrote pandas: "have 5 to 10 times as much RAM as the size of your dataset"
("Apache Arrow and the 10 Things I Hate About pandas", 2017)."""
OF_KNOWN = 2
"""Times the 95th percentile of what such code took: the limit is hard."""
MOST_BYTES = 1 << 40
"""A plan asks for no more."""
_STEP = 256 << 20  # sizes are rounded up to it, so that a plan does not change with every session that is learned
_LOOKED_AT, _SIZES = 20_000, 30  # characters of a text, and sizes in them
_AROUND = 60  # characters in which it must say that a size is one of data

_UNITS = {"k": 10, "m": 20, "g": 30, "t": 40}
_SIZE = re.compile(
    r"(?<![\w.,])(\d{1,6}(?:[.,]\d{1,3})?)[ \t\u00a0-]{0,2}(?:([kmgt])i?b|(kilo|mega|giga|tera)bytes?|(gig|meg)s?)\b(?![/-]?s\b|ps\b)", re.IGNORECASE
)
_DATA = re.compile(
    r"\b(?:files?|data\w*|csvs?|tsvs?|parquets?|json|jsonl|ndjson|xlsx?|excel|spreadsheets?|logs?|dumps?|tables?|dataframes?|archives?|uploads?|uploaded|attached|attachments?"
    r"|export\w*|database|sqlite|pickle|hdf5?|feather|images?|videos?|corpus)\b|\.\w{2,7}\b",
    re.IGNORECASE,
)
_MACHINE_AFTER = re.compile(r"\s*(?:of\s+)?(?:(?:free|available|system|main|gpu|unified|ddr\d)\s+)?(?:v?ram|memory|gpu|disk|ssd|hdd|storage|swap|bandwidth|heap|limit|budget|quota|per\s+second)\b", re.IGNORECASE)
_MACHINE_BEFORE = re.compile(r"\b(?:v?ram|memory|gpu|disk|ssd|heap|limit|budget|quota|under|below|(?:less|smaller|no more|no larger|no bigger) than|at most|up to(?! now)|max(?:imum)?)\b[^.;\n\d]{0,25}$", re.IGNORECASE)
_CLAUSE = re.compile(r"[;!?\n]|\.\s")


@dataclass(frozen=True)
class Bounds:
    """Bytes: the limit of a sandbox whose plan names none, and what data may raise it to (0: half of what the host has for all of them)."""

    default: int = 2 << 30
    most: int = 0

    @classmethod
    def from_settings(cls) -> Bounds:
        """Raises settings.SettingError."""
        return cls(settings.get("sandbox_memory_bytes"), settings.get("sandbox_memory_most_bytes"))


def data_bytes(text: str) -> int:
    """The largest size of data that ``text`` mentions ("a 3 GB CSV", "[file: x.csv, 812 MB]"), in bytes; 0 for none.

    Sizes of machines ("16 GB of RAM") are none of data, nor are those that say nothing of what they measure.
    """
    text = text[:_LOOKED_AT]
    largest = 0
    for match in islice(_SIZE.finditer(text), _SIZES):
        before = _CLAUSE.split(text[max(0, match.start() - _AROUND) : match.start()])[-1]
        after = _CLAUSE.split(text[match.end() : match.end() + _AROUND])[0]
        if _MACHINE_AFTER.match(after) or _MACHINE_BEFORE.search(before) or not (_DATA.search(before) or _DATA.search(after)):
            continue
        unit = (match[2] or match[3] or match[4])[0].lower()
        largest = max(largest, int(_number(match[1]) * (1 << _UNITS[unit])))
    return largest


def memory_bytes(*, asked: int | None, known: int | None, data: int, before: int | None, stands: bool, default: int, most: int | None) -> int | None:
    """The memory limit to plan for; None leaves it at ``default``.

    ``asked`` is what K2 decided, ``known`` what such code took (see History.memory_bytes), ``data`` the size of the data, ``before`` the limit of
    the plan that ``stands``, ``most`` what data may raise it to (None: unknown, and then data raises nothing). Only K2 makes a limit smaller than
    ``default``, and without it that of what stands is never lowered: something may be in it.
    """
    limit = asked if known is None else max(asked or default, _rounded(OF_KNOWN * known))
    enough = max(limit or default, min(_rounded(OF_DATA * data), most or 0))
    if stands and asked is None:
        enough = max(enough, before or default)
    return None if enough == default and asked is None and before is None else min(enough, MOST_BYTES)


def _rounded(size: int) -> int:
    return -(-size // _STEP) * _STEP


def _number(text: str) -> float:
    """``1.5``; ``1,5`` as much of Europe writes it, and ``1,500`` as others write fifteen hundred."""
    whole, comma, rest = text.partition(",")
    return float(whole + rest) if comma and len(rest) == 3 else float(text.replace(",", "."))
