"""What a text that is still growing imports and installs: import statements, dynamic imports, ``pip install``.

``ImportScanner`` reads pieces cut anywhere, of code or of prose with code in it, and reports a name once its logical line is
complete. It reads with a hand-made tokenizer: the text is a stranger's, half finished and often not even Python, so no
parser would do. Work is proportional to the text, memory is bounded, and nothing here raises on what it reads.

``scan`` does the same for a whole code text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

_STATEMENT_LIMIT = 4096  # characters kept of a logical line: every real import fits
_STRING_LIMIT = 300  # characters kept of a string, for import_module("…") and subprocess arguments
_WHOLE_LINE_LIMIT = 1000  # a longer line of prose is not an import or an install
_LINE_LIMIT = 8192  # characters kept of a line of prose
_FOUND_LIMIT = 500  # different finds a scanner reports; no honest text has more

_MODULE = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
_AS = r"(?:\s+as\s+\w+)?"
_IMPORT = re.compile(r"(?:^|:)\s*(?:>>>\s*)?import\s+([^:]+)$", re.ASCII)
_FROM = re.compile(rf"(?:^|:)\s*(?:>>>\s*)?from\s+({_MODULE})\s+import\b\s*\(?([^)]*)", re.ASCII)
_ITEM = re.compile(rf"\s*({_MODULE}){_AS}\s*", re.ASCII)
_IMPORTED = re.compile(rf"\s*([A-Za-z_]\w*|\*){_AS}\s*", re.ASCII)
_STARTS_IMPORT = re.compile(rf"\s*(?:import\s+{_MODULE}\s*(?:,|as\b|$)|from\s+{_MODULE}\s+import\b)", re.ASCII)
_DYNAMIC = re.compile(r'\b(?:import_module|__import__)\s*\(\s*[rRuU]?"(\d+)"')
_STRING = re.compile(r'"(\d+)"')

_INSTALL = re.compile(
    r"(?:^|[\s;&|!%(])(?:pip[\d.]*\s+install|uv\s+add)\s+(.*)", re.DOTALL
)  # `uv pip install` and `python -m pip install` hold `pip install`
_RUNS_COMMAND = re.compile(r"\b(?:system|popen|Popen|run|call|check_call|check_output|getoutput|create_subprocess_\w+)\s*\(")
_COMMAND = re.compile(r"\s*(?:sudo\s+)?(?:\S*python[\d.]*\s+-m\s+|uv\s+)?(?:pip[\d.]*\s+install|uv\s+add)\s")
_REQUIREMENT = re.compile(
    r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?:\[[^\]]*\])?(?:===?([0-9][A-Za-z0-9.+!]*)$|[=<>!~;@].*)?$"
)
_OPTIONS_WITH_VALUE = frozenset(
    ("-r", "--requirement", "-c", "--constraint", "-i", "--index-url", "--extra-index-url", "-f", "--find-links", "-t",
     "--target", "-e", "--editable", "--prefix", "--root", "--python", "-p", "--platform", "--index", "--group",
     "--default-index", "--cache-dir", "--proxy", "--timeout", "--log")
)  # fmt: skip
_ENDS_COMMAND = frozenset(("&&", "||", "|", ";", "&", ">", ">>", "2>&1", "<"))
_FILES = (".txt", ".whl", ".gz", ".zip", ".toml", ".cfg", ".git", ".py")
# A line of prose that begins with `pip install pandas` may go on in English; none of these is worth a guess.
_ENGLISH = frozenset(
    ("and", "or", "to", "for", "in", "first", "then", "if", "with", "on", "the", "from", "before", "it", "this", "into",
     "as", "you")
)  # fmt: skip

_FENCE = re.compile(r"[\s>]*(?:[-*+]\s+|\d+[.)]\s+)?(`{3,}|~{3,})\s*([^\s`]*)")
_READABLE_FENCES = frozenset(
    ("", "py", "python", "python3", "py3", "ipython", "ipython3", "pycon", "jupyter", "notebook", "tool_code", "code",
     "sh", "bash", "shell", "zsh", "console", "terminal", "text", "txt")
)  # fmt: skip
_INLINE = re.compile(r"`([^`]{4,200})`")
_WHOLE_LINE = re.compile(
    rf"(?:>>>\s*)?(?:import\s+{_MODULE}{_AS}(?:\s*,\s*{_MODULE}{_AS})*"
    rf"|from\s+{_MODULE}\s+import\s+(?:\*|\(.*|\w+{_AS}(?:\s*,\s*\w+{_AS})*,?))\s*(?:#.*|;)?$",
    re.ASCII,
)
_WHOLE_COMMAND = re.compile(r"(?:[$!%>]\s*)?(?:sudo\s+)?(?:python[\d.]*\s+-m\s+|uv\s+)?(?:pip[\d.]*\s+install|uv\s+add)\s")

Kind = Literal["import", "pip install", "dynamic"]


@dataclass(frozen=True, slots=True)
class Found:
    """One name that the text imports or installs.

    For ``import`` and ``dynamic``, ``name`` is the dotted module as written (``sklearn.linear_model``) and ``imported``
    what a ``from`` takes out of it. For ``pip install``, ``name`` is the package, with ``==VERSION`` where one is pinned.
    """

    kind: Kind
    name: str
    imported: tuple[str, ...] = ()

    @property
    def top(self) -> str:
        """The module's first part: ``sklearn`` of ``sklearn.linear_model``."""
        return self.name.partition(".")[0]


class ImportScanner:
    """Reads one growing text. ``mode`` says what it is: ``code``, or ``prose`` in which code stands in fences, in
    inline code, or on a line that is nothing but an import or an install."""

    def __init__(self, mode: Literal["code", "prose"] = "code") -> None:
        self._reader: _CodeReader | _ProseReader = _CodeReader() if mode == "code" else _ProseReader()
        self._reported: set[Found] = set()

    def feed(self, text: str) -> list[Found]:
        """What ``text``, the next piece, completes; each find once in the scanner's life."""
        return self._new(self._reader.feed(text))

    def close(self) -> list[Found]:
        """The text is over: what its last line holds."""
        return self._new(self._reader.close())

    def _new(self, finds: list[Found]) -> list[Found]:
        new = []
        for found in finds:
            if found not in self._reported and len(self._reported) < _FOUND_LIMIT:
                self._reported.add(found)
                new.append(found)
        return new


def scan(code: str) -> list[Found]:
    """All that a whole ``code`` text imports and installs, in its order, each find once."""
    scanner = ImportScanner()
    return scanner.feed(code) + scanner.close()


# --------------------------------------------------------------------------------------------------------- code


class _Pieces:
    """A text put together from pieces, of which only the first ``limit`` characters are kept."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pieces: list[str] = []
        self._room = limit
        self.cut = False

    def add(self, piece: str) -> None:
        if len(piece) > self._room:
            piece = piece[: self._room]
            self.cut = True
        if piece:
            self._pieces.append(piece)
            self._room -= len(piece)

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def text(self) -> str:
        return "".join(self._pieces)

    def clear(self) -> None:
        self._pieces.clear()
        self._room = self._limit
        self.cut = False


_PLAIN = re.compile(r"""[^'"#\\\n\r;()\[\]{}]+""")
_IN_STRING = {"'": re.compile(r"[^'\\\n]+"), '"': re.compile(r'[^"\\\n]+')}
_IN_LONG_STRING = {"'": re.compile(r"[^'\\]+"), '"': re.compile(r'[^"\\]+')}
_IN_COMMENT = re.compile(r"[^\n\r]+")


class _CodeReader:
    """Cuts code into logical lines. In the text of a line every string is replaced by its number in quotes, so that
    what stands in strings never passes for code; their beginnings are kept aside."""

    def __init__(self) -> None:
        self._carry = ""  # a quote or a backslash that cannot be told without what follows
        self._line = _Pieces(_STATEMENT_LIMIT)  # the physical line
        self._statement = _Pieces(_STATEMENT_LIMIT)  # the lines before it that belong to the same statement
        self._strings: list[str] = []
        self._string = _Pieces(_STRING_LIMIT)
        self._quote = ""  # the quotes that end the string being read, or "#" in a comment
        self._depth = 0
        self._opened = False  # the statement's first bracket was seen
        self._command = False  # the statement is a notebook's command (`!ls`, `%pip`): its brackets need not match
        self._from_open = False  # the statement is a `from … import (` that waits for its `)`
        self._found: list[Found] = []

    def feed(self, text: str) -> list[Found]:
        self._read(self._carry + text, final=False)
        found, self._found = self._found, []
        return found

    def close(self) -> list[Found]:
        self._read(self._carry, final=True)
        if len(self._quote) == 1:  # an unfinished string or comment on the last line; a long string has no end at all
            self._quote = ""
        if not self._quote:
            self._end_line(whole=True)
        found, self._found = self._found, []
        return found

    def _read(self, text: str, final: bool) -> None:
        self._carry = ""
        position, end = 0, len(text)
        while position < end:
            if self._quote == "#":
                comment = _IN_COMMENT.match(text, position)
                position = comment.end() if comment else position
                if position < end:
                    self._quote = ""
                continue
            run = self._run().match(text, position)
            if run:
                (self._string if self._quote else self._line).add(run.group())
                position = run.end()
                continue
            rest = text[position : position + 3]
            if not final and self._undecided(rest):
                self._carry = rest
                return
            position += self._in_string(rest) if self._quote else self._outside(rest)

    def _undecided(self, rest: str) -> bool:
        """Whether ``rest``, the last characters there are, may mean something else once more have come."""
        if rest[0] == "\\":
            return rest in ("\\", "\\\r")
        return len(self._quote) != 1 and rest in ("'", "''", '"', '""')

    def _run(self) -> re.Pattern[str]:
        if not self._quote:
            return _PLAIN
        return _IN_STRING[self._quote] if len(self._quote) == 1 else _IN_LONG_STRING[self._quote[0]]

    def _in_string(self, rest: str) -> int:
        """One quote, backslash or line end inside a string; how many characters it takes."""
        if rest[0] == "\\":
            self._string.add(rest[1:2])
            return 2
        if rest.startswith(self._quote):
            length = len(self._quote)
            self._end_string()
            return length
        if rest[0] == "\n":  # a short string cannot go on: broken code, or an apostrophe of a shell's text
            self._end_string()
            return 0
        return 1

    def _end_string(self) -> None:
        self._line.add(f'"{len(self._strings)}"')
        if len(self._strings) < _FOUND_LIMIT:
            self._strings.append("" if self._string.cut else self._string.text())
        self._string.clear()
        self._quote = ""

    def _outside(self, rest: str) -> int:
        """One character that matters outside strings; how many characters it takes."""
        character = rest[0]
        if character in "'\"":
            self._quote = rest if rest == character * 3 else character
            return len(self._quote)
        if character == "#":
            self._quote = "#"
        elif character == "\\":
            self._line.add(" ")
            return 3 if rest == "\\\r\n" else 2
        elif character in "\n\r" or (character == ";" and self._depth == 0):
            self._end_line()
        elif character in "([{":
            self._open(character)
        elif character in ")]}":
            self._line.add(character)
            self._depth = max(0, self._depth - 1)
            if self._depth == 0 and self._from_open:
                self._end_line()
        else:
            self._line.add(character)
        return 1

    def _open(self, bracket: str) -> None:
        if not self._opened:
            self._opened = True
            started = self._statement.text() + self._line.text()
            self._command = started.lstrip()[:1] in ("!", "%")
            self._from_open = bracket == "(" and _FROM.search(started) is not None
        if not self._command:
            self._depth += 1
        self._line.add(bracket)

    def _end_line(self, whole: bool = False) -> None:
        """The physical line is over; so is the statement, unless a bracket is open (``whole``: even then)."""
        line = self._line.text()
        if self._depth > 0 and not whole:
            if self._statement and _STARTS_IMPORT.match(line):
                # `import` is a keyword: what was open before it is broken code, and this begins a statement.
                self._statement.clear()
                self._depth = sum(line.count(c) for c in "([{") - sum(line.count(c) for c in ")]}")
                self._from_open = self._depth > 0 and _FROM.search(line) is not None
                if self._depth <= 0:
                    self._end_statement(line)
                    return
            self._statement.add(line + "\n")
            self._line.clear()
            return
        self._end_statement(self._statement.text() + line)

    def _end_statement(self, statement: str) -> None:
        cut = self._line.cut or self._statement.cut
        if "import" in statement:
            self._found += _imports(statement, self._strings, cut)
        if "install" in statement or "uv add" in statement or any("install" in text for text in self._strings):
            self._found += _installs(statement, self._strings)
        self._line.clear()
        self._statement.clear()
        self._strings.clear()
        self._depth = 0
        self._opened = self._command = self._from_open = False


def _imports(statement: str, strings: list[str], cut: bool) -> Iterator[Found]:
    taken = _FROM.search(statement)
    if taken:
        names = []
        for item in taken[2].split(","):
            name = _IMPORTED.fullmatch(item)
            if name:
                names.append(name[1])
        yield Found("import", taken[1], tuple(names))
    elif plain := _IMPORT.search(statement):
        items = plain[1].split(",")
        for item in items[:-1] if cut else items:
            module = _ITEM.fullmatch(item)
            if not module:
                break
            yield Found("import", module[1])
    for dynamic in _DYNAMIC.finditer(statement):
        text = _string(strings, dynamic[1])
        if re.fullmatch(_MODULE, text, re.ASCII):
            yield Found("dynamic", text)


def _installs(statement: str, strings: list[str]) -> Iterator[Found]:
    """Installs on a command line, or in the arguments of a call that runs one."""
    if _RUNS_COMMAND.search(statement):
        for text in strings:
            if _COMMAND.match(text):
                yield from _requirements(text)
        if "pip" in strings and "install" in strings:  # ["python", "-m", "pip", "install", "x"]
            yield from _requirements("pip install " + " ".join(strings[strings.index("install") + 1 :]))
        return
    yield from _requirements(_STRING.sub(lambda match: _string(strings, match[1]), statement))


def _string(strings: list[str], number: str) -> str:
    index = int(number) if len(number) < 6 else len(strings)
    return strings[index] if index < len(strings) else ""


def _requirements(command: str) -> Iterator[Found]:
    install = _INSTALL.search(command)
    if not install:
        return
    words = iter(install[1].split())
    for word in words:
        if word in _ENDS_COMMAND or word in _ENGLISH:
            return
        if word.startswith("-"):
            if word in _OPTIONS_WITH_VALUE:
                next(words, None)
            continue
        requirement = _REQUIREMENT.match(word.strip("\"',;"))
        if requirement and "/" not in word and not word.endswith(_FILES):
            yield Found("pip install", requirement[1] + (f"=={requirement[2]}" if requirement[2] else ""))
        if word.endswith(";"):
            return


# -------------------------------------------------------------------------------------------------------- prose


class _ProseReader:
    """Cuts prose into lines, and hands those that are code to a reader of code."""

    def __init__(self) -> None:
        self._line = _Pieces(_LINE_LIMIT)
        self._fence = ""  # the mark that opened the fence we are in
        self._code: _CodeReader | None = None  # set inside a fence of a language we read

    def feed(self, text: str) -> list[Found]:
        found: list[Found] = []
        first, *others = text.split("\n")
        self._line.add(first)
        for piece in others:
            found += self._end_line()
            self._line.add(piece)
        return found

    def close(self) -> list[Found]:
        found = self._end_line()
        if self._code:
            found += self._code.close()
        return found

    def _end_line(self) -> list[Found]:
        line = self._line.text().rstrip("\r")
        self._line.clear()
        if self._fence:
            if line.strip().startswith(self._fence) and not line.strip(f" \t\r>{self._fence[0]}"):
                self._fence = ""
                code, self._code = self._code, None
                return code.close() if code else []
            return self._code.feed(line + "\n") if self._code else []
        fence = _FENCE.match(line)
        if fence:
            self._fence = fence[1]
            readable = fence[2].strip("{}.").lower() in _READABLE_FENCES
            self._code = _CodeReader() if readable else None
            return []
        whole = line.strip()
        if len(whole) <= _WHOLE_LINE_LIMIT and (_WHOLE_LINE.match(whole) or _WHOLE_COMMAND.match(whole)):
            return scan(whole)
        found: list[Found] = []
        for inline in _INLINE.finditer(line):
            if _WHOLE_LINE.match(inline[1]) or _WHOLE_COMMAND.match(inline[1]):
                found += scan(inline[1])
        return found
