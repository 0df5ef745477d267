"""Reads an answer that came as JSON although lines were asked for, whole or broken off."""

from __future__ import annotations

from typing import Any

import pydantic_core

_WORDS = {
    "package": "package", "packages": "package", "requirements": "package", "dependencies": "package",
    "import": "import", "imports": "import", "modules": "import", "preload": "import",
    "memory": "memory", "memory_gb": "memory", "cpu": "cpu", "cpus": "cpu", "sandbox": "sandbox", "sandboxes": "sandbox",
}  # fmt: skip
_ITEMS = 64
_ACTIONS = ("release", "nothing", "keep", "done")


def lines_of_json(text: str) -> list[tuple[str, list[str]]]:
    """What the first object of ``text`` says, as (word, items) of the answer's lines; empty when there is none."""
    start = text.find("{")
    if start < 0:
        return []
    document = _read(text[start:])
    if not isinstance(document, dict):
        return []
    lines: list[tuple[str, list[str]]] = []
    for key, value in list(document.items())[:_ITEMS]:
        name = str(key).lower()
        if word := _WORDS.get(name):
            suffix = "G" if name == "memory_gb" else ""
            lines.append((word, [item + suffix for item in _items(value)]))
        elif name in ("action", "decision") and str(value).lower() in _ACTIONS:
            lines.append((str(value).lower(), []))
        elif name in _ACTIONS and value is True:
            lines.append((name, []))
    return lines


def _read(text: str) -> Any:
    """The JSON that ``text`` begins with: what follows its last brace does not matter, nor that it breaks off."""
    for candidate in (text[: text.rfind("}") + 1], text):
        try:
            return pydantic_core.from_json(candidate, allow_partial=True)
        except ValueError:
            continue
    return None


def _items(value: Any) -> list[str]:
    """Names of a list, of a mapping name -> version, of objects with a name; or the value itself."""
    if isinstance(value, dict):
        return [_versioned(name, version) for name, version in list(value.items())[:_ITEMS]]
    if isinstance(value, list):
        named = [_versioned(item.get("name"), item.get("version")) if isinstance(item, dict) else item for item in value[:_ITEMS]]
        return [item for item in named if isinstance(item, str)]
    return [str(value)] if isinstance(value, str | int | float) and not isinstance(value, bool) else []


def _versioned(name: Any, version: Any) -> Any:
    return f"{name}=={version}" if isinstance(version, str) and version[:1].isdigit() else name
