"""What a growing text imports: exact, whatever pieces it comes in."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ephemeral.imports import Found, ImportScanner, scan


def names(text: str, mode: str = "code") -> list[str]:
    return [found.name for found in read(text, mode, len(text) or 1)]


def read(text: str, mode: str, step: int) -> list[Found]:
    scanner = ImportScanner(mode)  # type: ignore[arg-type]
    found = []
    for start in range(0, len(text), step):
        found += scanner.feed(text[start : start + step])
    return found + scanner.close()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import a, b as c\n", ["a", "b"]),
        ("import a.b.c as d", ["a.b.c"]),
        ("from a.b import (x,  # why\n    y as z)\nimport q", ["a.b", "q"]),
        ("from a import *", ["a"]),
        ("import a; import b", ["a", "b"]),
        ("import a \\\n  as b\nimport c", ["a", "c"]),
        ("import a \\\r\n  as b\r\nimport c\r\n", ["a", "c"]),
        ("from . import a\nfrom .b import c\nfrom ..d import e", []),
        ("def f():\n    import a\n    try: import b\n    except ImportError: from c import d", ["a", "b", "c"]),
        ('"""\nimport no\n"""\nimport a', ["a"]),
        ("x = '''\nimport no'''\nimport a", ["a"]),
        ("s = 'import no'; t = f\"{s['import no']}\"\nimport a", ["a"]),
        ("s = 'it\\'s'\nimport a", ["a"]),
        ("# import no\nimport a # import no", ["a"]),
        (">>> import a\n>>> from b import c\n", ["a", "b"]),
        ("import React from 'react'\nimport { x } from 'y'", []),
        ("x = (1,\n  2)\nimport a", ["a"]),
        ("print('x'\nimport a\nfrom b import (c,\n d)", ["a", "b"]),
        ("echo don't\nimport a", ["a"]),
    ],
)
def test_an_import_statement_counts_wherever_it_stands_and_a_string_never_does(code, expected):
    assert names(code) == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("%pip install x y==1.2 'z[extra]>=3'\n", ["x", "y==1.2", "z"]),
        ("!pip install -q -r requirements.txt x\n", ["x"]),
        ("!pip3 install x && echo pip install no", ["x"]),
        ("python -m pip install --index-url https://e.org/s x ./local git+https://e.org/r a.whl", ["x"]),
        ("cd /tmp && uv pip install x;ls", ["x"]),
        ("uv add x y", ["x", "y"]),
        ("import os\nos.system('pip install x==2')", ["os", "x==2"]),
        ("subprocess.check_call([sys.executable, '-m', 'pip', 'install', 'x', '-q'])", ["x"]),
        ("print('pip install no')", []),
        ("raise ImportError('pip install no')", []),
    ],
)
def test_an_explicit_install_counts_and_its_options_do_not(code, expected):
    assert names(code) == expected


def test_a_dynamic_import_with_a_literal_name_counts():
    assert scan("import importlib\nm = importlib.import_module('a.b')\nn = __import__(\"c\")\no = __import__(d)\n")[1:] == [
        Found("dynamic", "a.b"),
        Found("dynamic", "c"),
    ]


def test_what_a_from_import_takes_is_told():
    assert scan("from sklearn import linear_model as l, svm\n") == [Found("import", "sklearn", ("linear_model", "svm"))]
    assert scan("import a.b")[0].top == "a"


def test_a_line_counts_only_once_it_is_complete():
    scanner = ImportScanner()
    assert scanner.feed("import num") == []
    assert scanner.feed("py as np") == []
    assert scanner.feed("\n") == [Found("import", "numpy")]
    assert scanner.feed("from torch import (nn") == []
    assert scanner.feed(", optim)") == [Found("import", "torch", ("nn", "optim"))]
    assert scanner.feed("\nimport pandas;") == [Found("import", "pandas")]
    assert scanner.feed("import numpy\n") == []  # reported before
    assert scanner.feed("import last") == []
    assert scanner.close() == [Found("import", "last")]


PROSE = """I would import goods. import duties rose.
Use `import pandas as pd` or `pip install polars`, never `import x from 'y'`.

```python
import numpy as np
x = '''
import no
'''
from scipy import (stats,
    optimize)
```
```js
import no from 'no'
```
- ~~~
  import seaborn
  ~~~
import torch
run pip install no
pip install duckdb and then go
```
import last"""


@pytest.mark.parametrize("step", [1, 2, 3, 7, 10_000])
def test_in_prose_only_fences_inline_code_and_whole_lines_count(step):
    assert [found.name for found in read(PROSE, "prose", step)] == [
        "pandas", "polars", "numpy", "scipy", "seaborn", "torch", "duckdb", "last",
    ]  # fmt: skip


FRAGMENTS = st.sampled_from(
    ["import a", "from b.c import (d", ")", "\n", ";", "'", '"', "'''", '"""', "\\", "#", "(", "[", "]", "```", "```py\n", "~~~",
     "`", "pip install x", "!", "%", " ", "__import__('e')", "\r\n", "é", "\x00", "as", ",", ":", "try: "]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(FRAGMENTS, max_size=30).map("".join), st.sampled_from(["code", "prose"]), st.integers(1, 5))
def test_pieces_of_any_size_give_what_the_whole_gives(text, mode, step):
    assert read(text, mode, step) == read(text, mode, len(text) or 1)


@pytest.mark.parametrize(
    "unit",
    ["import a\n", "a;", "()", "[\n", "!(", "'", '"""', "\\", "from a import (", "x", " ", "`", ":  ", "pip install ",
     "import_module(", "```\n", "\r"]
)  # fmt: skip
@pytest.mark.parametrize("mode", ["code", "prose"])
@pytest.mark.timeout(30)  # a reader that looks at all its text again for each piece takes minutes
def test_a_hostile_text_in_small_pieces_costs_no_more_than_its_length(unit, mode):
    assert len(read(unit * (150_000 // len(unit)), mode, 10)) <= 2


def test_a_hostile_text_reports_no_more_than_a_bounded_number():
    assert len(scan("".join(f"import m{n}\n" for n in range(5000)))) == 500
