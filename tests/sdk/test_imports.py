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
        ("with suppress(ImportError): import a; import b", ["a", "b"]),
        ("if x['k:v'] == {1: 2}: import a\nmatch x:\n  case {'k': 1}: import b", ["a", "b"]),
        ("def f(x: int, *, y: str = 'no:no') -> dict[str, int]: from a import (b,\n c)", ["a"]),
        ("@d\nasync def f():\n\timport a\n\tasync with b as c, d: import e", ["a", "e"]),
        ("from \\\n a import \\\n b, \\\n c\nimport\\\n d", ["a", "d"]),
        ("\ufeffimport a\n\fimport b\r\nfrom\tc\timport*", ["a", "b", "c"]),
        ("import a . b\nfrom c . d import e\nfrom . f import g", ["a.b", "c.d"]),
        ("import a as ñ, b\nimport 数据\nimport c", ["a", "b", "c"]),
        ("def f():\n    '''\n    >>> import no\n    '''\n    import a", ["a"]),
        ("s = 'one \\\r\nimport no'\r\nimport a\r\n", ["a"]),
        ("x = f\"{', '.join(f'{k}={d[\"k\"]}' for k in d)}\"\nimport a", ["a"]),
        ("print(f\"{d[\"(\"]}\")\ndef f(x):\n  return x\nimport a", ["a"]),
        ("print(f\"{d[\"it's\"]}\")\nimport a", ["a"]),
        ("In [1]: import a\n>>> from b import (c,\n...   d)\n", ["a", "b"]),
        ("x = yield from y\nraise X from import_y\nimport\nimport 'no'\nimport the data from the file", []),
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
        ("!{sys.executable} -m pip install x\n!$sys.executable -m pip --quiet install y\nout = !pip install z", ["x", "y", "z"]),
        ("pip install -U pip && pip install x; pip install y | tee no", ["pip", "x", "y"]),
        ("pip install \\\n  x \\\n  y  # no", ["x", "y"]),
        ("!uv pip install --system x\n!poetry add -G dev y\npipenv install z\npdm add w", ["x", "y", "z", "w"]),
        ("%conda install -y -c conda-forge x=1.2 python=3.11 pytorch\n!mamba install 'y>=3'", ["x", "torch", "y"]),
        ("%%bash\necho \"it's\"\npip install x\nif true; then python -m pip install y; fi\n", ["x", "y"]),
        ("%%capture\n!pip install x\nimport y", ["x", "y"]),
        ("print('x'\n!pip install y\n", ["y"]),
        ("os.system(f'{sys.executable} -m pip install x')\nos.system('conda install -y y')", ["x", "y"]),
        ("pip.main(['install', 'x'])", ["x"]),
        ("pip install . .[dev] -e ./no <package> $NAME {name} git+https://e.org/no", []),
        ("pipx install no; apt-get install -y no; npm install no; cargo add no; pip uninstall -y no; pip download no", []),
        ("print('pip install no')", []),
        (f"pip install {'a' * 101} {'b' * 100} x=={'1' * 41} y=={'1' * 40}", ["b" * 100, f"y=={'1' * 40}"]),
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


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("importlib.import_module(name='a')\nimport_module(\n  'b.c', package=None)", ["a", "b.c"]),
        ("import_module('.no', 'p')\nimport_module(f'no{x}')\nimport_module('no.' + x)\nimport_module('no' 'no')", []),
        ("im('no')\nfrom importlib import (\n  import_module as im)\nx = im('a')", ["importlib", "a"]),
        ("import importlib as il; il.import_module('a')", ["importlib", "a"]),
        ("if importlib.util.find_spec('a') is None: pass", ["a"]),
        ("pytest.importorskip('a.b', minversion='1')", ["a.b"]),
        ("exec('import a; import b\\nprint(\"import no\")')\nprint('import no')", ["a", "b"]),
        ("timeit.timeit('f(x)', setup='import a as x; from b import f')", ["a", "b"]),
        ("!python -c 'import a; print(a)'\nsubprocess.run([sys.executable, '-c', 'import b'])", ["a", "b"]),
    ],
)
def test_a_dynamic_import_counts_under_any_name_and_never_a_guessed_one(code, expected):
    assert names(code) == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("%load_ext autoreload\n%autoreload 2\n%load_ext cudf.pandas\nimport pandas", ["cudf.pandas", "pandas"]),
        ("%matplotlib inline\n%time import a\n%timeit -n 10 from b import c", ["matplotlib", "a", "b"]),
        ("%%timeit import a\nimport b", ["a", "b"]),
        ("%%writefile app.py\nimport streamlit as st\n", ["streamlit"]),
        ("%%writefile notes.md\nimport no\n", []),
        ("%%writefile requirements.txt\n# no\na\nb[x] >= 1.0  # no\nc == 2.1\n-r no.txt\ngit+https://e.org/no\n", ["a", "b", "c==2.1"]),
        ("%%javascript\nimport no\n'''", []),
        ("%%html\n<script>\nimport no\n</script>", []),
        ("x = 1\n%%html\nimport a", ["a"]),
    ],
)
def test_a_notebook_s_magics_count_for_what_they_load_and_cells_of_other_languages_do_not(code, expected):
    assert names(code) == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("# /// script\n# requires-python = '>=3.11'\n# dependencies = [\n#   \"a<3\",\n#   'b[x]==1.0',\n# ]\n# ///\nimport c", ["a", "b==1.0", "c"]),
        ("# /// script\r\n# dependencies = ['a']\r\n# ///", ["a"]),
        ("# /// script\n# dependencies = ['no']\nimport c", ["c"]),
        ("# /// script\n# dependencies = [no\n# ///\n# /// script\n# dependencies = [1, 'a']\n# ///\n", ["a"]),
        ("x = 1  # /// script\n# dependencies = ['no']\n# ///\n", []),
    ],
)
def test_the_inline_metadata_of_a_script_counts_once_it_is_closed(code, expected):
    assert names(code) == expected


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1. do:\n   ```python\n   import a\n   if x:\n       import b\n   ```\nimport no no", ["a", "b"]),
        ("> ```python\n> import a\n> from b import (c,\n>   d)\n> ```\n", ["a", "b"]),
        ("> ```python\n> import a\nThe quote is over.\nimport no no\n`import b`", ["a", "b"]),
        ("````python\n```\nimport a\n```\n````\nimport no no", ["a"]),
        ("```python\nx = '''\n```\nimport a", ["a"]),
        ("```python\nimport a", ["a"]),
        ("```python import no``` is code in a line\nimport a", ["a"]),
        ('```Python3.11 title="x.py"\nimport a\n```\n```{python}\nimport b\n```\n```ipynb\nimport c\n```', ["a", "b", "c"]),
        ("```console\n$ pip install x\n```\n```dockerfile\nRUN pip install b\n```\n```powershell\npip install c\n```", ["x", "b", "c"]),
        ("```requirements.txt\na==1\nb>=2\n```", ["a==1", "b"]),
        ('Run `pip install "a[x]>=1"` or ``pip install -U b``; `conda install c`, `poetry add d`, `npm install no`.', ["a", "b", "c", "d"]),
        ("- pip install x\n2. pip install b\n> pip install c\n$ pip install d\nconda install -c conda-forge e", ["x", "b", "c", "d", "e"]),
        ("pip install x. Then run it.\npip install is no word of English.\nRun pip install no to begin.", ["x"]),
        ("import the data from the file\nImport no\nfrom the start import everything we need\nPlease import no, then plot", []),
    ],
)
def test_prose_as_models_write_it(text, expected):
    for step in (1, 3, len(text)):
        assert [found.name for found in read(text, "prose", step)] == expected


FRAGMENTS = st.sampled_from(
    ["import a", "from b.c import (d", ")", "\n", ";", "'", '"', "'''", '"""', "\\", "#", "(", "[", "]", "```", "```py\n", "~~~",
     "`", "pip install x", "!", "%", " ", "__import__('e')", "\r\n", "é", "\x00", "as", ",", ":", "try: ",
     "# /// script\n", "# dependencies = ['f']\n", "# ///\n", "%load_ext g\n", "%%html\n", "%%writefile requirements.txt\n",
     "exec('import h')", "> ", "def f(", "&&", "from importlib import import_module as im\n", "im('i')", "f\"{"]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(FRAGMENTS, max_size=30).map("".join), st.sampled_from(["code", "prose"]), st.integers(1, 5))
def test_pieces_of_any_size_give_what_the_whole_gives(text, mode, step):
    assert read(text, mode, step) == read(text, mode, len(text) or 1)


@pytest.mark.parametrize(
    "unit",
    ["import a\n", "a;", "()", "[\n", "!(", "'", '"""', "\\", "from a import (", "x", " ", "`", ":  ", "pip install ",
     "import_module(", "```\n", "\r", "import" + " " * 3900 + ":\n", "%time" + " " * 3900 + "import\n", "import a" + " ." * 1900 + "\n",
     "pip install " + "&& pip install " * 250 + "\n", "pip" + " --x" * 900 + " install\n", "(\ndef " + " " * 3900 + "\n",
     "exec('import " + "a" * 280 + "')\n", "# /// script\n# x=" + "[" * 290 + "\n# ///\n", "> " * 2000 + "```py\n"]
)  # fmt: skip
@pytest.mark.parametrize("mode", ["code", "prose"])
@pytest.mark.timeout(30)  # a reader that looks at all its text again for each piece takes minutes
def test_a_hostile_text_in_small_pieces_costs_no_more_than_its_length(unit, mode):
    assert len(read(unit * (150_000 // len(unit)), mode, 10)) <= 2


def test_a_hostile_text_reports_no_more_than_a_bounded_number():
    assert len(scan("".join(f"import m{n}\n" for n in range(5000)))) == 500
