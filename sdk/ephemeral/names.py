"""Import names and package names: which package brings ``cv2``, what to import of ``scikit-learn``, which names are known.

Packages are spoken of in PyPI's normal form (PEP 503: ``Foo.Bar_baz`` is ``foo-bar-baz``), modules by their dotted import name.
Everything here is offline. The tables in ``data/`` are read at the first question (a few milliseconds), not at import.
"""

from __future__ import annotations

import gzip
import re
import sys
from datetime import date
from functools import cache
from pathlib import Path

_DATA = Path(__file__).parent / "data"
_SEPARATORS = re.compile(r"[-_.]+")

# Packages that bring the same modules. The first of each row is the one to install: no display, no GPU, no compiler needed.
_EQUIVALENT: tuple[tuple[str, ...], ...] = (
    ("opencv-python-headless", "opencv-python"),
    ("opencv-contrib-python-headless", "opencv-contrib-python"),
    ("psycopg2-binary", "psycopg2"),
    ("scikit-learn", "sklearn"),
    ("beautifulsoup4", "bs4", "beautifulsoup"),
    ("pillow", "pil"),
    ("pyyaml", "yaml"),
    ("python-dateutil", "dateutil"),
    ("faiss-cpu", "faiss-gpu", "faiss"),
    ("onnxruntime", "onnxruntime-gpu"),
    ("tensorflow", "tensorflow-cpu", "tensorflow-gpu"),
    ("torch", "pytorch"),
    ("levenshtein", "python-levenshtein"),
    ("xgboost", "xgboost-cpu"),
    ("fpdf2", "fpdf"),
)

# Where the modules worth importing ahead are not the package's top levels: what nearly every program imports next.
_PRELOAD: dict[str, tuple[str, ...]] = {
    "matplotlib": ("matplotlib", "matplotlib.pyplot"),
    "pillow": ("PIL", "PIL.Image"),
    "attrs": ("attr", "attrs"),
    "plotly": ("plotly", "plotly.graph_objects"),
    "lxml": ("lxml", "lxml.etree"),
}
_MODULES_MAX = 4


def normalize(name: str) -> str:
    """The normal form of a package name (PEP 503)."""
    return _SEPARATORS.sub("-", name).lower()


def is_stdlib(module: str) -> bool:
    """Whether ``module`` (or the package it lies in) belongs to Python itself."""
    return module.partition(".")[0] in sys.stdlib_module_names


def rank(package: str) -> int | None:
    """Place among PyPI's most downloaded packages, 1 for the first; None when it is not among them."""
    return _popular().get(normalize(package))


def most_popular(count: int) -> list[str]:
    """The ``count`` most downloaded packages, the first first."""
    return list(_popular())[:count]


def popular() -> tuple[int, date]:
    """How many names have a rank, and the day when the list was made."""
    head = _text("popular.txt.gz").partition("\n")[0]
    return len(_popular()), date.fromisoformat(head.rpartition(" most downloaded packages of ")[2][:10])


def package_for(module: str) -> str | None:
    """The package that brings ``module``; None for the standard library and for what nobody knows.

    A dotted name is looked up from its full length down, so that ``google.protobuf`` and ``google.genai`` differ. A name that no
    table holds counts as a package of the same name only if that package is popular and known for no other import name.
    """
    if is_stdlib(module):
        return None
    modules = _modules()
    name = module
    while name:
        if name in modules:
            return modules[name]
        name = name.rpartition(".")[0]
    candidate = normalize(module.partition(".")[0])
    if candidate in _popular() and candidate not in _imports():
        return candidate
    return None


def modules_for(package: str) -> list[str]:
    """The import names worth preloading for ``package``, best first, at most four; empty when none is known.

    The module named as the package is enough where there is one. ``pillow`` gives ``PIL`` and ``PIL.Image``, ``scikit-learn`` gives ``sklearn``.
    """
    name = equivalent(package)
    if name in _PRELOAD:
        return list(_PRELOAD[name])
    found = _imports().get(name)
    if found is None:
        module = name.replace("-", "_")
        return [module] if name in _popular() and package_for(module) == name else []
    own = [module for module in found if normalize(module) == name]
    return own[:1] or sorted(found, key=lambda module: (module.count("."), len(module), module))[:_MODULES_MAX]


def equivalent(package: str) -> str:
    """The package that stands for ``package`` and for all that bring the same modules, in normal form.

    ``opencv-python`` gives ``opencv-python-headless``; a package like no other gives itself.
    """
    name = normalize(package)
    return _representatives().get(name, name)


def equivalents(package: str) -> frozenset[str]:
    """All packages that bring the same modules as ``package``, itself included, in normal form."""
    name = equivalent(package)
    for group in _EQUIVALENT:
        if group[0] == name:
            return frozenset(group)
    return frozenset((name,))


def _rows(file: str) -> list[str]:
    """The rows of a table: without the first, which says what it is."""
    return _text(file).splitlines()[1:]


def _text(file: str) -> str:
    return gzip.decompress((_DATA / file).read_bytes()).decode()


@cache
def _popular() -> dict[str, int]:
    return {name: place for place, name in enumerate(_rows("popular.txt.gz"), start=1)}


@cache
def _brought() -> dict[str, list[str]]:
    """Module -> the packages that bring it, the one to install first; none where the import is never taken for a package."""
    table: dict[str, list[str]] = {}
    for row in _rows("modules.txt.gz"):
        module, *packages = row.split(" ")
        table[module] = [] if packages == ["-"] else packages or [module.lower().replace("_", "-")]
    return table


@cache
def _modules() -> dict[str, str | None]:
    """Module -> the package to install; None where the import is never taken for a package."""
    return {module: packages[0] if packages else None for module, packages in _brought().items()}


@cache
def _imports() -> dict[str, list[str]]:
    """Package -> its modules: the table read backwards."""
    table: dict[str, list[str]] = {}
    for module, packages in _brought().items():
        for package in packages:
            table.setdefault(package, []).append(module)
    return table


@cache
def _representatives() -> dict[str, str]:
    return {name: group[0] for group in _EQUIVALENT for name in group}
