"""A text as a sparse vector: its words, pairs of words and pieces of words, hashed into a fixed number of buckets.

Pieces of words (three to five characters) carry what words alone do not: other spellings, other endings, other languages. The
same text gives the same vector on every machine and Python.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise

BUCKETS = 1 << 17
"""Buckets of words, and as many of pieces after them."""
TEXT_LIMIT = 4000  # characters looked at: what is asked for stands at the beginning
PIECES_LIMIT = 2000

_WORD = re.compile(r"\w+")
_SPACE = re.compile(r"\s+")


def counts(text: str) -> tuple[Counter[int], Counter[int]]:
    """Bucket -> how often, of the words and of the pieces of ``text``. The pieces' buckets begin at BUCKETS."""
    text = text[:TEXT_LIMIT].lower()
    words = _WORD.findall(text)
    crc = zlib.crc32
    found = Counter([crc(word.encode()) % BUCKETS for word in words])  # no lonely surrogate is part of a word
    found.update(crc(f"{first} {second}".encode()) % BUCKETS for first, second in pairwise(words))
    pieces: Counter[int] = Counter()
    for token, times in Counter(_SPACE.split(text[:PIECES_LIMIT])).items():
        padded = f" {token[:40]} "
        data = padded.encode("utf-16-le", "surrogatepass")  # two bytes a character: a piece is a slice
        for size in (6, 8, 10):
            for start in range(0, len(data) - size + 1, 2):
                pieces[BUCKETS + crc(data[start : start + size]) % BUCKETS] += times
    return found, pieces


def weigh(found: Counter[int], idf: Mapping[int, float]) -> dict[int, float]:
    """Bucket -> weight: the logarithm of its count, times its ``idf``, at a length of one. Buckets without idf are left out."""
    weighed = {bucket: (1.0 + math.log(times)) * idf[bucket] for bucket, times in found.items() if bucket in idf}
    length = math.sqrt(sum(value * value for value in weighed.values()))
    return {bucket: value / length for bucket, value in weighed.items()}
