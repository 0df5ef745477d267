"""What a text that is still growing imports and installs: import statements, dynamic imports, ``pip install``.

``ImportScanner`` reads pieces cut anywhere, of code or of prose with code in it, and reports a name once its logical line is
complete. It reads with a hand-made tokenizer: the text is a stranger's, half finished and often not even Python, so no
parser would do. Work is proportional to the text, memory is bounded, and nothing here raises on what it reads.

Names of modules are ASCII: Python allows others, but no package index has any, and `import 数据` is as likely a sentence. A
name that an ``as`` gives may be in any script.

``scan`` does the same for a whole code text.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Literal

_STATEMENT_LIMIT = 4096  # characters kept of a logical line: every real import fits
_STRING_LIMIT = 300  # characters kept of a string, for import_module("…") and subprocess arguments
_WHOLE_LINE_LIMIT = 1000  # a longer line of prose is not an import or an install
_LINE_LIMIT = 8192  # characters kept of a line of prose
_FOUND_LIMIT = 500  # different finds a scanner reports; no honest text has more
_MODULE_LIMIT, _PACKAGE_LIMIT, _VERSION_LIMIT = 200, 100, 40  # characters of a name: a plan carries no longer one

_METADATA_LIMIT = 8192  # characters kept of a script's inline metadata (PEP 723)
_ALIAS_LIMIT = 8  # names under which a text may know import_module

_MODULE = r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*"
_AS = r"(?:\s+as\s+\w+)?"
_PROMPT = r"(?:>>>\s*|In \[\d+\]:\s*)?"
_IMPORT = re.compile(rf"(?:^\ufeff?|:)\s*{_PROMPT}import\s+([^\s:][^:]*)$")
_FROM = re.compile(rf"(?:^\ufeff?|:)\s*{_PROMPT}from\s+({_MODULE})\s+import\b\s*\(?([^)]*)")
_ITEM = re.compile(rf"\s*({_MODULE}){_AS}\s*")
_IMPORTED = re.compile(rf"\s*([A-Za-z_][A-Za-z0-9_]*|\*){_AS}\s*")
_SPACED_DOT = re.compile(r"(?<!\s)\s*\.\s+|(?<!\s)\s+\.")  # `import a . b` is `import a.b`
_TIMED = re.compile(r"\s*%%?(?:time|timeit|prun|memit)(?:\s+-\w+(?:\s*\d+)?)*(?=\s+(?:import|from)\s)")
# What begins a statement and never continues one: when a bracket is still open before it, that bracket is broken code
# (or stands in an f-string inside an f-string's own quotes, which is not followed here).
_STARTS_STATEMENT = re.compile(
    rf"\s*(?:import\s+{_MODULE}\s*(?:,|as\b|$)|from\s+{_MODULE}\s+import\b|(?:async\s+)?def\s+\w+\s*\(|class\s+\w+\s*[(:]"
    r"|return\b|try\s*:|while\b|with\b|raise\b|assert\b|del\b|global\b|[!%](?:pip|uv|conda|mamba)\b)"
)
_DYNAMIC = re.compile(r'\b(\w+)\s*\(\s*(?:name\s*=\s*)?[rRuU]?"(\d+)"\s*[,)]')
_IMPORTERS = frozenset(("import_module", "__import__", "find_spec", "importorskip"))
_IMPORTER_ALIAS = re.compile(r"\bimport_module\s+as\s+(\w+)")
_RUNS_CODE = re.compile(r"\b(?:exec|timeit|repeat|Timer)\s*\(|(?:python[\d.]*|executable\}?)\s+(?:-\w+\s+){0,4}-c\s")
_STRING = re.compile(r'"(\d+)"')
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r"}

_INSTALLER = (
    r"(?:pip[\d.]*(?:\s+-{1,2}\w\S*){0,4}\s+install|(?:uv|poetry|pdm)\s+add|pipenv\s+install"
    r"|(?P<conda>conda|mamba|micromamba)\s+install)"
)
_PYTHON_M = r"(?:\S*python[\d.]*|\{[\w.]{1,40}\}|\$\S{1,40})\s+-m\s+"
_INSTALL = re.compile(rf"(?:^|[\s;&|!%(]){_INSTALLER}\s+")  # `uv pip install` and `python -m pip install` hold `pip install`
_COMMAND = re.compile(rf"\s*(?:sudo\s+)?(?:{_PYTHON_M}|uv\s+)?{_INSTALLER}\s+")
_RUNS_COMMAND = re.compile(
    r"\b(?:system|popen|Popen|run|call|check_call|check_output|getoutput|create_subprocess_\w+|pip(?:\._internal)?\.main)\s*\("
)
_WORD = re.compile(r"\S+")
_REQUIREMENT = re.compile(
    r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?:\[[^\]]*\])?(?:===?([0-9][A-Za-z0-9.+!]*)$|[=<>!~;@].*)?$"
)
_OPTIONS_WITH_VALUE = frozenset(
    ("-r", "--requirement", "-c", "--constraint", "-i", "--index-url", "--extra-index-url", "-f", "--find-links", "-t",
     "--target", "-e", "--editable", "--prefix", "--root", "--python", "-p", "--platform", "--index", "--group",
     "--default-index", "--cache-dir", "--proxy", "--timeout", "--log", "-n", "--name", "--channel", "--file", "-G",
     "--trusted-host", "--only-binary", "--no-binary")
)  # fmt: skip
_AND_THEN = frozenset(("&&", "||", ";", "&"))
_ENDS_COMMAND = frozenset(("|", ">", ">>", "2>&1", "<"))
_FILES = (".txt", ".whl", ".gz", ".zip", ".toml", ".cfg", ".git", ".py", ".yml", ".yaml")
# What conda calls otherwise than PyPI; "" is nothing that pip has.
_OF_CONDA = {"python": "", "pip": "", "cudatoolkit": "", "pytorch": "torch", "opencv": "opencv-python", "matplotlib-base": "matplotlib"}
# A line of prose that begins with `pip install pandas` may go on in English; none of these is worth a guess.
_ENGLISH = frozenset(
    ("and", "or", "to", "for", "in", "first", "then", "if", "with", "on", "the", "from", "before", "it", "this", "into",
     "as", "you", "is", "are", "was", "will", "can", "should", "does", "not", "a", "an", "by", "at", "of", "that", "which",
     "when", "again", "now", "your", "my", "all", "these", "because", "but", "so", "after", "inside", "via")
)  # fmt: skip

_LOADS = re.compile(r"\s*%(load_ext|matplotlib)\b\s*([\w.]*)", re.ASCII)
_OF_IPYTHON = frozenset(("autoreload", "storemagic"))  # extensions that come with it
_CELL = re.compile(r"\s*%%(\w+)(.*)")
_FOREIGN_CELLS = frozenset(
    ("javascript", "js", "html", "latex", "markdown", "svg", "sql", "bigquery", "r", "perl", "ruby", "css")
)  # fmt: skip
_REQUIREMENTS_FILE = re.compile(r"(?:^|[\s/])[\w.-]*requirements[\w.-]*\.(?:txt|in)$")
_OTHER_FILE = re.compile(r"\.(?!(?:py|pyx|ipy|sh)$)\w+$")

_FENCE = re.compile(r"([\s>]*)(?:[-*+]\s+|\d+[.)]\s+)?(?:(`{3,})\s*([^\s`]*)[^`]*$|(~{3,})\s*(\S*))")
_READABLE_FENCES = frozenset(
    ("", "py", "python", "ipython", "ipynb", "pycon", "jupyter", "notebook", "tool_code", "code", "sh", "bash", "shell",
     "zsh", "fish", "console", "terminal", "powershell", "ps1", "pwsh", "cmd", "bat", "batch", "dockerfile", "docker", "text",
     "txt")
)  # fmt: skip
_REQUIREMENTS_FENCES = frozenset(("requirements", "requirements.txt", "pip-requirements"))
_INLINE = re.compile(r"`([^`]{4,200})`")
_WHOLE_LINE = re.compile(
    rf"{_PROMPT}(?:import\s+{_MODULE}{_AS}(?:\s*,\s*{_MODULE}{_AS})*"
    rf"|from\s+{_MODULE}\s+import\s+(?:\*|\(.*|\w+{_AS}(?:\s*,\s*\w+{_AS})*,?))\s*(?:#.*|;)?$"
)
_WHOLE_COMMAND = re.compile(rf"(?:[$!%>*-]\s*|\d{{1,3}}[.)]\s+)?{_COMMAND.pattern}")

Kind = Literal["import", "pip install", "dynamic"]


@dataclass(frozen=True, slots=True)
class Found:
    """One name that the text imports or installs.

    For ``import`` and ``dynamic`` (``import_module("x")``, ``find_spec``, ``exec("import x")``, ``%load_ext x``), ``name`` is
    the dotted module as written (``sklearn.linear_model``) and ``imported`` what a ``from`` takes out of it. For ``pip
    install``, by whichever installer or list of requirements, ``name`` is the package, with ``==VERSION`` where one is pinned.
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
            if len(found.name) <= _MODULE_LIMIT and found not in self._reported and len(self._reported) < _FOUND_LIMIT:
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
    what stands in strings never passes for code; their beginnings are kept aside.

    ``nested``: the text is a string of another, and strings of its own are not looked into once more."""

    def __init__(self, nested: bool = False) -> None:
        self._nested = nested
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
        self._begun = False  # a first statement was read: a cell's magic can come no more
        self._rest: _Requirements | _Ignored | None = None  # reads what follows a cell's magic that makes it no code
        self._importers = _IMPORTERS
        self._comment: _Pieces | None = None  # the comment being read, when it may belong to inline metadata
        self._metadata: _Pieces | None = None  # the metadata so far, between `# /// script` and `# ///`
        self._found: list[Found] = []

    def feed(self, text: str) -> list[Found]:
        self._read(self._carry + text, final=False)
        found, self._found = self._found, []
        return found

    def close(self) -> list[Found]:
        self._read(self._carry, final=True)
        if self._quote == "#":
            self._end_comment()
        if len(self._quote) == 1:  # an unfinished string on the last line; a long string has no end at all
            self._quote = ""
        if self._rest:
            self._found += self._rest.close()
        elif not self._quote:
            self._end_line(whole=True)
        found, self._found = self._found, []
        return found

    def _read(self, text: str, final: bool) -> None:
        self._carry = ""
        position, end = 0, len(text)
        while position < end:
            if self._rest:
                self._found += self._rest.feed(text[position:])
                return
            if self._quote == "#":
                comment = _IN_COMMENT.match(text, position)
                if comment:
                    position = comment.end()
                    if self._comment is not None:
                        self._comment.add(comment.group())
                if position < end:
                    self._end_comment()
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
            if rest == "\\\r\n":
                return 3
            self._string.add(_ESCAPED.get(rest[1:2], rest[1:2]))
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

    def _end_comment(self) -> None:
        self._quote = ""
        comment, self._comment = self._comment, None
        if comment is None:
            return
        line = comment.text().rstrip()
        if self._metadata is None:
            if line == " /// script":
                self._metadata = _Pieces(_METADATA_LIMIT)
        elif line == " ///":
            metadata, self._metadata = self._metadata, None
            self._found += _dependencies("" if metadata.cut else metadata.text())
        else:
            self._metadata.add(line[1:] + "\n")

    def _outside(self, rest: str) -> int:
        """One character that matters outside strings; how many characters it takes."""
        character = rest[0]
        if character in "'\"":
            self._quote = rest if rest == character * 3 else character
            return len(self._quote)
        if character == "#":
            self._quote = "#"
            # Only a comment at a line's very beginning can be metadata.
            self._comment = None if self._nested or self._line or self._depth else _Pieces(_STRING_LIMIT)
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
        if self._depth > 0 and self._statement and _STARTS_STATEMENT.match(line):
            self._statement.clear()
            self._depth = sum(line.count(c) for c in "([{") - sum(line.count(c) for c in ")]}")
            self._from_open = self._depth > 0 and _FROM.search(line) is not None
        if self._depth > 0 and not whole:
            self._statement.add(line + "\n")
            self._line.clear()
            return
        self._end_statement(self._statement.text() + line)

    def _end_statement(self, statement: str) -> None:
        cut = self._line.cut or self._statement.cut
        if "import" in statement or "find_spec" in statement or len(self._importers) > len(_IMPORTERS):
            self._take_imports(statement, cut)
        if "install" in statement or " add " in statement or any("install" in text for text in self._strings):
            self._found += _installs(statement, self._strings)
        if not self._nested and any("import" in text for text in self._strings):
            self._found += _of_strings(statement, self._strings)
        mark = statement.lstrip()[:2]
        if mark[:1] == "%":
            self._take_magic(statement, mark)
        if mark:
            self._begun = True
            self._metadata = None  # its comments follow each other
        self._line.clear()
        self._statement.clear()
        self._strings.clear()
        self._depth = 0
        self._opened = self._command = self._from_open = False

    def _take_imports(self, statement: str, cut: bool) -> None:
        self._found += _imports(statement, cut)
        for alias in _IMPORTER_ALIAS.findall(statement):
            if len(self._importers) < len(_IMPORTERS) + _ALIAS_LIMIT:
                self._importers |= {alias}
        for function, number in _DYNAMIC.findall(statement):
            if function in self._importers:
                text = _string(self._strings, number)
                if re.fullmatch(_MODULE, text):
                    self._found.append(Found("dynamic", text))

    def _take_magic(self, statement: str, mark: str) -> None:
        """A notebook's ``%load_ext x`` imports x; ``%%html`` and its like make the whole cell something else than code."""
        loads = _LOADS.match(statement)
        if loads:
            module = "matplotlib" if loads[1] == "matplotlib" else loads[2]
            if re.fullmatch(_MODULE, module) and module not in _OF_IPYTHON:
                self._found.append(Found("dynamic", module))
        cell = _CELL.match(statement) if mark == "%%" and not self._begun else None
        if cell:
            kind, argument = cell[1].lower(), cell[2].strip()
            if kind == "writefile" and _REQUIREMENTS_FILE.search(argument):
                self._rest = _Requirements()
            elif kind in _FOREIGN_CELLS or (kind == "writefile" and _OTHER_FILE.search(argument)):
                self._rest = _Ignored()


class _Ignored:
    """Reads what is no code."""

    def feed(self, text: str) -> list[Found]:
        return []

    def close(self) -> list[Found]:
        return []


class _Requirements:
    """Reads a growing ``requirements.txt``."""

    def __init__(self) -> None:
        self._line = _Pieces(_WHOLE_LINE_LIMIT)

    def feed(self, text: str) -> list[Found]:
        found: list[Found] = []
        first, *others = text.split("\n")
        self._line.add(first)
        for piece in others:
            found += self.close()
            self._line.add(piece)
        return found

    def close(self) -> list[Found]:
        """What the line so far requires."""
        line = re.sub(r"(?:^|\s)#.*", "", self._line.text())
        self._line.clear()
        line = re.sub(r"\s*([=<>!~]=?=?)\s*", r"\1", line.strip())
        found = _requirement(line.split()[0]) if line[:1].isalnum() and len(line) < _STRING_LIMIT else None
        return [found] if found else []


def _imports(statement: str, cut: bool) -> Iterator[Found]:
    if timed := _TIMED.match(statement):
        statement = statement[timed.end() :]
    if " ." in statement or ". " in statement:
        statement = _SPACED_DOT.sub(".", statement)
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


def _installs(statement: str, strings: list[str]) -> Iterator[Found]:
    """Installs on a command line, or in the arguments of a call that runs one."""
    if _RUNS_COMMAND.search(statement):
        for text in strings:
            yield from _commands(text, _COMMAND.match(text))
        if "install" in strings and ("pip" in strings or "pip" in statement):  # ["python", "-m", "pip", "install", "x"]
            yield from _words(" ".join(strings[strings.index("install") + 1 :]), 0, conda=False)
        return
    command = _STRING.sub(lambda match: _string(strings, match[1]), statement)
    yield from _commands(command, _INSTALL.search(command))


def _of_strings(statement: str, strings: list[str]) -> Iterator[Found]:
    """What code in strings imports, where it is plainly run: ``exec("import x")``, ``timeit``'s set-up, ``python -c "…"``."""
    if _RUNS_CODE.search(statement) or "-c" in strings:
        for text in strings:
            if "import" in text:
                reader = _CodeReader(nested=True)
                for found in reader.feed(text) + reader.close():
                    yield Found("dynamic", found.name, found.imported) if found.kind == "import" else found


def _string(strings: list[str], number: str) -> str:
    index = int(number) if len(number) < 6 else len(strings)
    return strings[index] if index < len(strings) else ""


def _commands(text: str, install: re.Match[str] | None) -> Iterator[Found]:
    """What the installing command that ``install`` found in ``text`` installs, and those chained to it."""
    while install:
        end = yield from _words(text, install.end(), conda=install["conda"] is not None)
        install = _COMMAND.match(text, end) if end < len(text) else None


def _words(text: str, start: int, conda: bool) -> Generator[Found, None, int]:
    """The requirements among the words of ``text`` from ``start`` on. Returns where the next command may begin."""
    takes_value = False
    for match in _WORD.finditer(text, start):
        word = match.group()
        if takes_value:
            takes_value = False
            continue
        if word in _AND_THEN:
            return match.end()
        if word in _ENDS_COMMAND or word in _ENGLISH:
            break
        if word.startswith("-"):
            takes_value = word in _OPTIONS_WITH_VALUE
            continue
        found = _requirement(word, conda)
        if found:
            yield found
        if word.endswith(";"):
            return match.end()
        if word.endswith(".") and word[:1].isalnum():
            break  # the end of a sentence
    return len(text)


def _requirement(word: str, conda: bool = False) -> Found | None:
    """What one word of an installing command, or of a line of ``requirements.txt``, asks for: a package, or nothing."""
    bare = word.strip("\"',;").rstrip(".")
    requirement = _REQUIREMENT.match(bare)
    if not requirement or "/" in word or bare.endswith(_FILES):
        return None
    name = _OF_CONDA.get(requirement[1].lower(), requirement[1]) if conda else requirement[1]
    version = requirement[2] or ""
    if not name or len(name) > _PACKAGE_LIMIT or len(version) > _VERSION_LIMIT:
        return None
    return Found("pip install", f"{name}=={version}" if version else name)


def _dependencies(metadata: str) -> Iterator[Found]:
    """The dependencies of a script's inline metadata: TOML."""
    try:
        dependencies = tomllib.loads(metadata).get("dependencies")
    except (tomllib.TOMLDecodeError, RecursionError):
        return
    for dependency in dependencies if isinstance(dependencies, list) else ():
        if isinstance(dependency, str):
            yield from _Requirements().feed(dependency + "\n")


# -------------------------------------------------------------------------------------------------------- prose


class _ProseReader:
    """Cuts prose into lines, and hands those that are code to a reader of code."""

    def __init__(self) -> None:
        self._line = _Pieces(_LINE_LIMIT)
        self._fence = ""  # the mark that opened the fence we are in
        self._quoted = 0  # in how many block quotes (`>`) it stands
        self._code: _CodeReader | _Requirements | None = None  # set inside a fence of a language we read

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
            inside = _unquoted(line, self._quoted)
            if inside is not None and not self._closes(inside):
                return self._code.feed(inside + "\n") if self._code else []
            self._fence = ""
            code, self._code = self._code, None
            found = code.close() if code else []
            return found if inside is not None else found + self._prose(line)
        return self._prose(line)

    def _closes(self, line: str) -> bool:
        return line.strip().startswith(self._fence) and not line.strip(f" \t\r>{self._fence[0]}")

    def _prose(self, line: str) -> list[Found]:
        fence = _FENCE.match(line)
        if fence:
            self._fence = fence[2] or fence[4]
            self._quoted = fence[1].count(">")
            language = (fence[3] or fence[5] or "").strip("{}.").lower()
            if language in _REQUIREMENTS_FENCES:
                self._code = _Requirements()
            elif language.rstrip("0123456789.") in _READABLE_FENCES:
                self._code = _CodeReader()
            return []
        whole = line.strip()
        if len(whole) <= _WHOLE_LINE_LIMIT and (_WHOLE_LINE.match(whole) or _WHOLE_COMMAND.match(whole)):
            return scan(whole)
        found: list[Found] = []
        for inline in _INLINE.finditer(line):
            if _WHOLE_LINE.match(inline[1]) or _WHOLE_COMMAND.match(inline[1]):
                found += scan(inline[1])
        return found


def _unquoted(line: str, depth: int) -> str | None:
    """``line`` without the marks of the ``depth`` block quotes that it stands in; None when it has left them."""
    for _ in range(depth):
        line = line.lstrip()
        if not line.startswith(">"):
            return None
        line = line[1:]
    return line
