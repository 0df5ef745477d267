"""Tasks of known solution, one JSON object a line, and what it takes to judge a prediction by them."""

from __future__ import annotations

import gzip
import json
import tomllib
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ephemeral import names

CLOSURE = Path(__file__).parent / "data/closure.toml"
_GZIP = b"\x1f\x8b"


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, gzipped or not, whatever it is called. Raises OSError, or EOFError or zlib.error for a broken archive."""
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
    with gzip.open(path, "rb") if packed else path.open("rb") as opened:
        yield from opened


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The tasks of a file of ours: objects with ``messages``, ``packages``, ``source``, ``license``, one a line; or, in a ``.tsv``, what
    we wrote ourselves (see ``predictor/training/README.md``). Raises ValueError for a line that is none."""
    for line in lines(path):
        yield _written(line.decode(), path.stem) if path.suffix == ".tsv" else json.loads(line)


def _written(line: str, source: str) -> dict[str, Any]:
    packages, separator, text = line.rstrip("\n").partition("\t")
    if not separator:
        raise ValueError(f"{source}.tsv has a line without a tab: {line[:60]!r}")
    messages = [{"role": "user", "content": message.replace("\\n", "\n")} for message in text.split(" ||| ")]
    return {"messages": messages, "packages": [] if packages == "-" else packages.split(","), "source": source, "license": "Apache-2.0"}


def covered(packages: Iterable[str]) -> set[str]:
    """``packages`` and all that they bring along, as ``names.equivalent`` gives them."""
    reached: set[str] = set()
    waiting = list(packages)
    while waiting:
        package = waiting.pop()
        if package not in reached:
            reached.add(package)
            waiting += _brings().get(package, ())
    return reached


@cache
def base() -> frozenset[str]:
    """The packages that are importable in every sandbox: the base environment that sandboxd ships, with its dependencies."""
    return frozenset(names.equivalent(package) for package in table()["base"])


def table() -> dict[str, Any]:
    """``data/closure.toml`` as it stands: ``base`` (list of packages), ``brings`` and ``kept`` (package -> what comes with it)."""
    return tomllib.loads(CLOSURE.read_text())


@cache
def _brings() -> dict[str, Collection[str]]:
    found = table()
    return {names.equivalent(package): {names.equivalent(name) for name in others} for package, others in {**found["kept"], **found["brings"]}.items()}
