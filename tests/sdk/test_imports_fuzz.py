"""The import scanner beside Python's own parser, over generated programs and the standard library; and through a tool call's JSON."""

import ast
import json
import sysconfig
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ephemeral.imports import ImportScanner, scan
from ephemeral.streams.json_string import CodeArguments


def parsed(code: str) -> set[tuple[str, tuple[str, ...]]]:
    """What Python's parser says that ``code`` imports, wherever it stands: modules, and the names taken out of each."""
    found: set[tuple[str, tuple[str, ...]]] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {(alias.name, ()) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add((node.module, tuple(alias.name for alias in node.names)))
    return found


def scanned(code: str) -> set[tuple[str, tuple[str, ...]]]:
    return {(found.name, found.imported) for found in scan(code) if found.kind == "import"}


NAME = st.sampled_from(["a", "b_2", "numpy", "import_x", "froms", "_c"])
MODULE = st.lists(NAME, min_size=1, max_size=3).map(".".join)
ALIAS = st.sampled_from(["", " as x", "  as  ñ"])
SPACE = st.sampled_from([" ", "  ", "\t", " \\\n "])
ITEMS = st.lists(st.builds("{}{}".format, NAME, ALIAS), min_size=1, max_size=3)
PLAIN_IMPORT = st.builds(lambda space, items, comma: f"import{space}{comma.join(items)}", SPACE,
                         st.lists(st.builds("{}{}".format, MODULE, ALIAS), min_size=1, max_size=3), st.sampled_from([",", ", ", " , ", ", \\\n"]))
FROM_IMPORT = st.builds(lambda space, dots, module, items: f"from{space}{dots}{module} import {', '.join(items)}",
                        SPACE, st.sampled_from(["", "", "", ".", ".."]), MODULE, ITEMS)
FROM_LIST = st.builds(lambda module, space, items, comma, last: f"from {module} import{space}({comma.join(items)}{last})", MODULE, st.sampled_from(["", " "]), ITEMS,
                      st.sampled_from([",\n    ", ", # why ) not\n", ",\n\n"]), st.sampled_from(["", ",", ",\n", "\n  # import no\n"]))
OTHER = st.sampled_from(
    [
        "pass", "x = 1", "x = 'import no'", 's = "it\'s"', "x = '''\nimport no\nfrom no import no'''", 'x = r"\\\\"; y = b"#"', "x = [1,\n 2, # import no\n]",
        "x = {'k:v': (1, 2)}[\n'k:v']", "f = lambda x: x", 'x = f"{y!r:>{10}} import no {{"', "x = f'{d[\"import no\"]}'", '"""import no\n>>> import no\n"""', "x = '\\\nimport no'",
        "print(\n'a'\n'import no')", "x: int = 1", "x = a if b else c", "x = y[1:2]", "x = 1 \\\n + 2", "raise X from y", "assert x, 'import no'", "x = y @ z", "x = a.import_x(1)",
    ]
)  # fmt: skip
SIMPLE = st.one_of(PLAIN_IMPORT, FROM_IMPORT, FROM_LIST, OTHER)
LINE = st.builds(lambda parts, joint, end: joint.join(parts) + end, st.lists(SIMPLE, min_size=1, max_size=3), st.sampled_from([";", " ; "]),
                 st.sampled_from(["", ";", "  # import no", " # it's ("]))
HEADER = st.sampled_from(["if x:", "try:", "def f(a: int = 1, *b) -> 'import no':", "async def f():", "class A(B, metaclass=C):", "with suppress(A, B): ", "for x in {1: 2}:", "while x[1:2]:",
                          "if (x and\n    y):"])  # fmt: skip


def _block(header: str, body: list[str], one_line: bool) -> str:
    tail = "\nfinally: import z" if header == "try:" else ""
    if one_line:
        return f"{header} {body[0]}{tail}"
    # Only a statement's first line is indented: what follows stands in brackets, strings, or after a backslash.
    return header + "".join(f"\n    {line}" for line in body) + tail


NESTED = st.builds(_block, HEADER, st.lists(LINE, min_size=1, max_size=3), st.booleans())
PROGRAM = st.lists(st.one_of(LINE, NESTED), min_size=1, max_size=6).map("\n".join)


@settings(max_examples=400, deadline=None, database=None)
@given(PROGRAM, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_what_the_scanner_finds_in_python_is_what_python_finds(program: str, newline: str, ends: bool) -> None:
    code = (program + ("\n" if ends else "")).replace("\n", newline)
    assert scanned(code) == parsed(code)


@settings(max_examples=200, deadline=None, database=None)
@given(PROGRAM, st.sampled_from(["code", "prose"]), st.data())
def test_a_text_cut_anywhere_gives_the_same_finds_as_the_whole(program: str, mode: str, data: st.DataObject) -> None:
    text = program if mode == "code" else f"So:\n```python\n{program}\n```\nThen `pip install x`."
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    scanner = ImportScanner(mode)  # type: ignore[arg-type]
    found = [find for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True) for find in scanner.feed(text[start:end])]
    whole = ImportScanner(mode)  # type: ignore[arg-type]
    assert found + scanner.close() == whole.feed(text) + whole.close()


def _library(count: int) -> list[Path]:
    """``count`` files of the standard library, spread over all of it."""
    files = sorted(path for path in Path(sysconfig.get_paths()["stdlib"]).rglob("*.py") if "site-packages" not in path.parts)
    assert len(files) > 100, "this Python came without the sources of its standard library: install them, or use one that has them"
    return files[:: max(1, len(files) // count)]


def test_the_standard_library_s_own_files_are_read_as_python_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    read = 0
    for path in _library(150):
        try:
            code = path.read_text()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected = {name for name, _ in parsed(code)}
        except (SyntaxError, ValueError):
            continue  # its own tests hold files that are broken on purpose
        assert {name for name, _ in scanned(code)} == {name for name in expected if name.isascii()}, path
        read += 1
    assert read > 100


@settings(max_examples=100, deadline=None, database=None)
@given(PROGRAM, st.integers(1, 7), st.booleans())
def test_a_tool_call_s_half_finished_json_tells_each_import_before_the_string_ends(program: str, step: int, ascii_only: bool) -> None:
    code = program + "\n"
    document = json.dumps({"title": "import no", "code": code, "timeout": 3}, ensure_ascii=ascii_only)
    closing = document.index('", "timeout"')
    arguments, scanner = CodeArguments(), ImportScanner()
    found = []
    for start in range(0, closing, step):
        for what, text in arguments.feed(document[start : min(start + step, closing)]):
            assert what == "code"
            found += scanner.feed(text)
    assert found == scan(code)
    assert arguments.feed(document[closing:])[-1] == ("done", "")


@pytest.mark.parametrize("cut", [0, 5, 10, 310])
def test_a_long_key_that_begins_like_one_of_code_is_none_wherever_it_is_cut(cut: int) -> None:
    document = '{"code' + "x" * 300 + '": "import no"}'
    reader = CodeArguments()
    assert reader.feed(document[:cut]) + reader.feed(document[cut:]) == []
