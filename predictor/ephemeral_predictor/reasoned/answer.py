"""K2's streamed answer, piece by piece, into a decision. One answer in five is broken: what can be read of it counts."""

from __future__ import annotations

import re

from ephemeral import names
from ephemeral_predictor.state import Decision

_LIMIT = 64_000  # characters of an answer that are read
_PACKAGES = 16
_MODULES = 32

_DECORATION = re.compile(r"^[\s>*\-•`\"'\d.)(]*(?=[A-Za-z])")
_LINE = re.compile(r"(package|import|memory|cpus?|release|nothing|done)\b(?:\s*[:=]\s*|\s+)?(.*)", re.IGNORECASE)
_PACKAGE = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?)(?:\s*==\s*([0-9][A-Za-z0-9.+!]{0,39}))?$")
_MODULE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT])?i?B?", re.IGNORECASE)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_MEMORY_RANGE = (64 << 20, 1 << 40)


class Answer:
    """Reads the deltas of one answer. ``complete`` becomes true as soon as nothing that follows could matter.

    Reasoning comes in fields of its own, or in the content up to ``</think>``, sometimes without its opening tag. So
    content whose lines are not all of the answer's form may be reasoning, until the tag or the end tells.
    """

    def __init__(self) -> None:
        self.complete = False
        self._content = ""
        self._room = _LIMIT
        self._line = 0  # where the line begins that was not looked at yet
        self._told = False  # the reasoning is known to be over, or to come apart
        self._prose = False  # some line is not of the answer's form: this may be reasoning

    def feed(self, content: str, reasoning: str = "") -> None:
        """The next delta: its ``content``, and its ``reasoning`` or ``reasoning_content``."""
        if reasoning:
            self._told = True
        if not content or self.complete:
            return
        self._content += content[: max(0, self._room)]
        self._room -= len(content)
        if "\n" in content or "done" in self._content[-len(content) - 4 :].lower() or self._room <= 0:
            self.complete = self._is_complete() or self._room <= 0

    def decision(self) -> Decision | None:
        """What the answer decides; None when it holds no line of the form."""
        _, _, answer = self._content.rpartition("</think>")
        packages: dict[str, str | None] = {}
        modules: dict[str, None] = {}
        memory: int | None = None
        cpus: float | None = None
        words: set[str] = set()
        for line in answer.splitlines():
            parsed = _parse(line)
            if parsed is None:
                continue
            word, rest = parsed
            words.add(word)
            if word == "done":
                break
            if word == "package" and (package := _PACKAGE.match(rest)) and len(packages) < _PACKAGES:
                name = names.equivalent(names.package_for(package[1]) or package[1])
                if not names.is_stdlib(package[1]):
                    packages[name] = package[2]
            elif word == "import" and (module := _MODULE.match(rest)) and len(modules) < _MODULES and len(rest) <= 200:
                if not names.is_stdlib(module.group()):
                    modules[module.group()] = None
            elif word == "memory":
                memory = _memory(rest) or memory
            elif word in ("cpu", "cpus"):
                cpus = _cpus(rest) or cpus
        if packages or modules:
            return Decision("provision", packages, tuple(modules), memory, cpus)
        if memory or cpus:
            return Decision("resize", memory_bytes=memory, cpus=cpus)
        for word in ("release", "nothing"):
            if word in words:
                return Decision(word)
        return Decision("provision") if "done" in words else None

    def _is_complete(self) -> bool:
        """Look at the lines that are new since the last call, for the one that ends the answer."""
        tag = self._content.rfind("</think>", max(0, self._line - 8))
        if tag >= 0:
            self._line = tag + len("</think>")
            self._told, self._prose = True, False
        while True:
            end = self._content.find("\n", self._line)
            line = self._content[self._line : end if end >= 0 else None]
            parsed = _parse(line)
            if parsed and parsed[0] == "done" and (self._told or not self._prose):
                return True
            if end < 0:
                return False
            if parsed is None and line.strip(" `\t"):
                self._prose = True
                self._told = self._told and "<think>" not in line
            self._line = end + 1


def _parse(line: str) -> tuple[str, str] | None:
    """Word and rest of one line of the answer's form, whatever bullets and quotes stand around it."""
    line = _DECORATION.sub("", line[:300].strip()).strip("`*\"' \t,;")
    match = _LINE.fullmatch(line)
    if not match:
        return None
    word, rest = match[1].lower(), match[2].strip("`*\"' \t.,;")
    if word in ("release", "nothing", "done"):
        return None if rest else (word, "")
    return (word, rest) if rest and len(rest.split()) <= 3 else None


def _memory(text: str) -> int | None:
    match = _MEMORY.fullmatch(text)
    size = int(float(match[1]) * _UNITS[(match[2] or "").upper()]) if match else 0
    return size if _MEMORY_RANGE[0] <= size <= _MEMORY_RANGE[1] else None


def _cpus(text: str) -> float | None:
    match = re.fullmatch(r"\d{1,3}(?:\.\d{1,3})?", text)
    count = float(match.group()) if match else 0.0
    return count if 0 < count <= 256 else None
