"""Runs the programs named on the command line, and writes down what their clients saw.

Each line of standard input names the providers' addresses for one run, as JSON; each run becomes a line of canonical JSON on
standard output: program -> step -> what it saw. One process for several runs, because importing a client takes longer than using it.

A program is a module whose functions are decorated with ``step``. What a step returns, or raises, is written down: pydantic
models by their fields, bytes by their sha256, exceptions by their type and what they tell of the answer.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import importlib
import inspect
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping

KEY = os.environ["CLIENT_KEY"]
NAME = os.environ["CLIENT_NAME"]

_PER_RUN = (
    (re.compile(r"\blc_run--[0-9a-f-]{30,}"), "RUN"),  # LangChain gives each run's messages random ids
    # The Agents SDK's own clock, where the API says nothing.
    (re.compile(r'"created_at": \d{10}\.\d{2,}'), '"created_at": "NOW"'),
)
_steps: list[Callable[[], object]] = []
_urls: dict[str, str] = {}


def step(function: Callable[[], object]) -> Callable[[], object]:
    _steps.append(function)
    return function


def url(provider: str) -> str:
    """Where ``provider`` is, without ``/v1``."""
    return _urls[provider]


def prompt(protocol: str) -> str:
    """The user's words of a conversation that the test looks for among the events."""
    return f"[{NAME} {protocol}] Fit a line, please."


def headers(of: Mapping[str, str]) -> list[list[str]]:
    """Every header, repeated ones too, in order."""
    items = of.multi_items() if hasattr(of, "multi_items") else of.items()
    return [[name, value] for name, value in items]


def drained(stream: Iterable[object]) -> list[object]:
    """What came, and how it ended where it did not end well."""
    seen: list[object] = []
    try:
        seen.extend(stream)
    except Exception as error:
        seen.append(error)
    return seen


def shown(value: object) -> object:
    if isinstance(value, bytes):
        return {"bytes": len(value), "sha256": hashlib.sha256(value).hexdigest()}
    if isinstance(value, BaseException):
        return _exception(value)
    if isinstance(value, Mapping):
        return {str(key): shown(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [shown(item) for item in value]
    if hasattr(value, "model_dump"):
        return {"": type(value).__name__, **shown(value.model_dump(warnings=False))}  # type: ignore[dict-item]
    if dataclasses.is_dataclass(value):
        return {"": type(value).__name__, **{f.name: shown(getattr(value, f.name)) for f in dataclasses.fields(value)}}
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)


def _exception(error: BaseException) -> object:
    said: dict[str, object] = {"raised": type(error).__name__, "text": str(error)}
    for name in ("status_code", "code", "status", "body", "request_id", "type", "details"):
        if hasattr(error, name):
            said[name] = shown(getattr(error, name))
    answer = getattr(error, "response", None)
    if hasattr(answer, "headers"):
        said["headers"] = headers(answer.headers)
    return said


def _run(function: Callable[[], object]) -> object:
    try:
        result = function()
        return shown(asyncio.run(result) if inspect.iscoroutine(result) else result)
    except Exception as error:
        if "EXPLAIN" in os.environ:
            traceback.print_exc()
        return shown(error)


def _written(programs: list[str]) -> str:
    out = {}
    for name in programs:
        _steps.clear()
        sys.modules.pop(name, None)
        importlib.import_module(name)
        out[name] = {function.__name__: _run(function) for function in _steps}
    text = json.dumps(out, sort_keys=True, default=repr)
    for pattern, instead in _PER_RUN:
        text = pattern.sub(instead, text)
    return text


def main() -> None:
    for line in sys.stdin:
        _urls.update(json.loads(line))
        print(_written(sys.argv[1:]), flush=True)


if __name__ == "__main__":
    sys.modules["record"] = sys.modules["__main__"]
    main()
