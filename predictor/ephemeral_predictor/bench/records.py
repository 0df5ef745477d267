"""A file's lines into records. What cannot be read is counted, and named by its line."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ephemeral import names
from ephemeral_predictor import tasks

_NAMED = 20  # bad lines and unknown packages that are named; the rest is counted


class Unreadable(Exception):
    """Nothing of a file can be used. The message names the file."""


@dataclass(frozen=True)
class Record:
    """``needed``: the packages that the solution imports, as ``names.equivalent`` gives them; ``code``: the solution, empty when the file has none."""

    messages: list[dict[str, Any]]
    needed: frozenset[str]
    code: str


@dataclass
class Records:
    """What was read of a file. ``bad`` holds the first lines that could not be used, each with its reason; ``unknown`` counts package names
    that nobody knows: they stay needed."""

    file: str
    found: list[Record] = field(default_factory=list)
    bad_lines: int = 0
    bad: list[str] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)

    def summary(self) -> dict[str, Any]:
        """For the result."""
        return {
            "read": len(self.found), "with_packages": sum(bool(record.needed) for record in self.found),
            "with_code": sum(bool(record.code) for record in self.found), "bad_lines": self.bad_lines, "bad": self.bad,
            "unknown_packages": dict(sorted(self.unknown.items())[:_NAMED]),
        }


def read(path: Path) -> Records:
    """The records of ``path``. Raises Unreadable when there is none."""
    records = Records(str(path))
    try:
        for number, line in enumerate(tasks.lines(path), start=1):
            if not line.strip():
                continue
            try:
                records.found.append(_record(line, records.unknown))
            except ValueError as problem:
                records.bad_lines += 1
                if len(records.bad) < _NAMED:
                    records.bad.append(f"line {number}: {problem}")
    except OSError as problem:
        raise Unreadable(f"{path} cannot be read: {problem.strerror or problem}") from None
    except (EOFError, zlib.error) as problem:
        raise Unreadable(f"{path} is a broken gzip archive: {problem}") from None
    if not records.found:
        raise Unreadable(f"{path} holds no record" + (f": {records.bad[0]}" if records.bad else ", it is empty"))
    return records


def _record(line: bytes, unknown: Counter[str]) -> Record:
    """Raises ValueError that says what is wrong with ``line``."""
    try:
        row = json.loads(line)
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except (ValueError, RecursionError):
        raise ValueError("no JSON") from None
    if not isinstance(row, dict):
        raise ValueError("no JSON object")
    messages, packages, code = row.get("messages"), row.get("packages"), row.get("code")
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) and isinstance(message.get("role"), str) for message in messages):
        raise ValueError("`messages` must be a list of objects with a `role`")
    if not isinstance(packages, list) or not all(isinstance(package, str) and package.strip() for package in packages):
        raise ValueError("`packages` must be a list of names")
    if not (code is None or isinstance(code, str)):
        raise ValueError("`code` must be a text")
    found: dict[str, bool] = {}
    for package in packages:
        name, known = _package(package.strip())
        if name:
            found[name] = known
    unknown.update(name for name, known in found.items() if not known)
    return Record(messages, frozenset(found), code or "")


def _package(name: str) -> tuple[str, bool]:
    """What ``name`` stands for, and whether anybody knows it. Empty for a module of Python itself."""
    package = names.equivalent(name)
    if names.rank(package) is not None or names.rank(name) is not None:
        return package, True
    if names.is_stdlib(name):
        return "", True
    by_import = names.package_for(name)  # an import name, as `cv2`
    return (names.equivalent(by_import), True) if by_import else (package, bool(names.modules_for(package)))
