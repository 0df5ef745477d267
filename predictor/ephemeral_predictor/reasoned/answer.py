"""K2's streamed answer, piece by piece, into a decision. One answer in five is broken: what can be read of it counts.

The answer is text of a stranger's making, whoever steers it. Only names, module paths and numbers within bounds come out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ephemeral import names
from ephemeral_predictor.reasoned import repair

_LIMIT = 64_000  # characters of an answer that are read
_REASONING = 16_000  # characters of its reasoning that are kept for the transcript
_PACKAGES = 16
_MODULES = 32
_SANDBOXES = 16

_DECORATION = re.compile(r"^[\s>*\-•`\"'\d.)(+]*(?=[A-Za-z])")
_EMPHASIS = str.maketrans("", "", "*`")
_LINE = re.compile(r"(packages?|imports?|from|memory|cpus?|sandbox(?:es)?|keep|release|nothing|done)\b(?:\s*[:=]\s*|\s+|$)(.*)", re.IGNORECASE)
_REMARK = re.compile(r"\s+(?:[#(–—]|-\s|//).*$")
_PACKAGE = re.compile(
    r"([A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?)(?:\[[\w.-]{0,40}\])?(?:\s*(==|[<>~!]=|[<>])\s*([0-9][A-Za-z0-9.+!]{0,39}|[0-9][0-9.]*\*))?"
)
_MODULE = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(?:\s+as\s+\w+)?", re.ASCII)
_FROM = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)\s+import\s+.{1,100}", re.ASCII)
_MEMORY = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)\s*([KMGT])?i?B?", re.IGNORECASE)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_MEMORY_RANGE = (64 << 20, 1 << 40)
_PLURALS = {"packages": "package", "imports": "import", "cpus": "cpu", "sandboxes": "sandbox"}
_ALONE = frozenset(("keep", "release", "nothing", "done"))


@dataclass
class Found:
    """What was read of an answer: every name and number within its bounds, whatever the answer said."""

    versions: dict[str, str | None] = field(default_factory=dict)
    modules: dict[str, None] = field(default_factory=dict)
    memory_bytes: int | None = None
    cpus: float | None = None
    sandboxes: int | None = None
    """How many sandboxes the conversation needs at a time."""
    words: set[str] = field(default_factory=set)

    @property
    def action(self) -> str | None:
        """``provision``, ``resize``, ``release``, ``nothing`` or ``keep``; None when nothing was said."""
        if self.versions or self.modules:
            return "provision"
        if self.sandboxes == 0:
            return "release"
        if self.memory_bytes or self.cpus:
            return "resize"
        for word in ("release", "nothing", "keep"):
            if word in self.words:
                return word
        return "provision" if "done" in self.words or self.sandboxes else None

    def take(self, word: str, items: list[str]) -> None:
        """Keep what one line says."""
        self.words.add(word)
        for item in items:
            if word == "package" and (package := _PACKAGE.fullmatch(item)) and len(self.versions) < _PACKAGES:
                if not names.is_stdlib(package[1]):
                    name = names.equivalent(names.package_for(package[1]) or package[1])
                    version = package[3] if package[2] == "==" and package[3] and not package[3].endswith("*") else None
                    self.versions[name] = version or self.versions.get(name)
            elif word == "import" and (module := _MODULE.fullmatch(item)) and len(self.modules) < _MODULES:
                if len(module[1]) <= 200 and not names.is_stdlib(module[1]):
                    self.modules[module[1]] = None
            elif word == "memory":
                self.memory_bytes = _memory(item) or self.memory_bytes
            elif word == "cpu":
                self.cpus = _cpus(item) or self.cpus
            elif word == "sandbox" and re.fullmatch(r"\d{1,2}", item):
                self.sandboxes = min(int(item), _SANDBOXES)


class Answer:
    """Reads the deltas of one answer. ``complete`` becomes true as soon as nothing that follows could matter; set ``cut``
    when it ended before its end.

    Reasoning comes in fields of its own, or in the content up to ``</think>``, sometimes without its opening tag. So
    content whose lines are not all of the answer's form may be reasoning, until the tag or the end tells.
    """

    def __init__(self) -> None:
        self.complete = False
        self.cut = False
        self.content = ""
        self.reasoning = ""
        self._line = 0  # where the line begins that was not looked at yet
        self._told = False  # the reasoning is known to be over, or to come apart
        self._prose = False  # some line is not of the answer's form: this may be reasoning

    def feed(self, content: str, reasoning: str = "") -> None:
        """The next delta: its ``content``, and its ``reasoning`` or ``reasoning_content``."""
        if reasoning:
            self._told = True
            self.reasoning += reasoning[: max(0, _REASONING - len(self.reasoning))]
        if not content or self.complete:
            return
        room = _LIMIT - len(self.content)
        if len(content) > room:
            self.cut = self.complete = True
        self.content += content[:room]
        if "\n" in content or "done" in self.content[-len(content) - 4 :].lower():
            self.complete = self._is_complete() or self.complete

    def found(self) -> Found:
        """What the answer says. Of one that was cut only the whole lines count, and only if they cannot be reasoning."""
        _, tag, answer = self.content.rpartition("</think>")
        answer = answer.partition("<think>")[0]
        found = Found()
        if self.cut and not self.complete:
            self._is_complete()
            if not tag and not self._told and self._prose:
                return found
            answer = answer[: answer.rfind("\n") + 1]
        listing = ""  # "packages:", whose items follow one a line
        for line in answer.splitlines():
            parsed = _parse(line)
            if parsed is None:
                item = _bare(line)
                if listing and item:
                    found.take(listing, [item])
                elif line.strip(" `\t"):
                    listing = ""
                continue
            word, items = parsed
            if word == "done":
                found.words.add(word)
                break
            listing = word if not items and word not in _ALONE else ""
            if items or word in _ALONE:
                found.take(word, items)
        if found.action is None:
            for word, items in repair.lines_of_json(answer):
                found.take(word, items)
        return found

    def _is_complete(self) -> bool:
        """Look at the lines that are new since the last call, for the one that ends the answer."""
        tag = self.content.rfind("</think>", max(0, self._line - 8))
        if tag >= 0:
            self._line = tag + len("</think>")
            self._told, self._prose = True, False
        while True:
            end = self.content.find("\n", self._line)
            line = self.content[self._line : end if end >= 0 else None]
            parsed = _parse(line)
            if parsed and parsed[0] == "done" and (self._told or not self._prose):
                return True
            if end < 0:
                return False
            if parsed is None and line.strip(" `\t"):
                self._prose = True
                self._told = self._told and "<think>" not in line
            self._line = end + 1


def _parse(line: str) -> tuple[str, list[str]] | None:
    """Word and items of one line of the answer's form, whatever bullets, quotes and remarks stand around it."""
    line = _DECORATION.sub("", line[:400].translate(_EMPHASIS).strip()).strip("\"' \t,;")
    match = _LINE.fullmatch(line)
    if not match:
        return None
    word, rest = match[1].lower(), _REMARK.sub("", match[2]).strip("`*\"' \t.,;!")
    word = _PLURALS.get(word, word)
    if word in _ALONE:
        return None if rest else (word, [])
    if word == "from":
        source = _FROM.fullmatch(rest)
        return ("import", [source[1]]) if source else None
    items = [item.strip("`*\"' \t") for item in rest.split(",")] if rest else []
    if word in ("package", "import"):
        shape = _PACKAGE if word == "package" else _MODULE
        return (word, items) if all(shape.fullmatch(item) for item in items) else None
    return (word, items) if len(rest.split()) <= 2 else None


def _bare(line: str) -> str:
    """The single word of a list's item; empty when it is none."""
    item = _REMARK.sub("", _DECORATION.sub("", line[:200].strip())).strip("`*\"' \t.,;")
    return "" if " " in item else item


def _memory(text: str) -> int | None:
    match = _MEMORY.fullmatch(text)
    size = int(float(match[1]) * _UNITS[(match[2] or "").upper()]) if match else 0
    return size if _MEMORY_RANGE[0] <= size <= _MEMORY_RANGE[1] else None


def _cpus(text: str) -> float | None:
    match = re.fullmatch(r"\d{1,3}(?:\.\d{1,3})?", text)
    count = float(match.group()) if match else 0.0
    return count if 0 < count <= 256 else None
