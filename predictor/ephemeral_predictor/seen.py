"""Step one of the ladder: packages that the text itself names, in import lines, installs, or by name.

Names come from a table of names people use (``data/mentions.toml``), and from all that is popular. A name that is also an English word
(``data/ordinary.txt``) counts only where the text says that it speaks of a library.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ephemeral import names
from ephemeral.imports import Found
from ephemeral_predictor.evidence import Evidence

_TOKEN = re.compile(r"[A-Za-z][A-Za-z0-9_]*(?:-[A-Za-z0-9_]+)*")
_SHORT = 3  # a shorter name counts alone only in capitals or as `np.array`
_VERSION = re.compile(r"==([0-9][A-Za-z0-9.+!]{0,38})(?![\w.*])")
_MEMBER = re.compile(r"\.[A-Za-z_]")
_PYTHON = re.compile(r"python|\bimport\b|librar|package|\bcode\b|script|function|\.py\b|\bdef\b|notebook", re.IGNORECASE)
_SPEAKS_OF_LIBRARY = re.compile(
    r"(?:\b(?:librar(?:y|ies)|packages?|modules?)\s+(?:called\s+|named\s+|like\s+|such as\s+)?|\bimport(?:ing)?\s+|\bpip install\s+)[`'\"]?$",
    re.IGNORECASE,
)
_IS_LIBRARY = re.compile(r"[`'\"]?\s+(?:python\s+)?(?:library|package|module|framework)\b", re.IGNORECASE)
_REJECTS = re.compile(
    r"\b(?:without|don'?t use|do not use|must not use|instead of|rather than|not using|avoid|not allowed to use)\s+"
    r"(?:(?:using|the|any|import(?:ing)?)\s+)*(?:[\w-]{1,30}(?:,|\s+or|\s+and)\s+){0,4}[`'\"]?$",
    re.IGNORECASE,
)
_USE = re.compile(r"\.[a-z_]\w*(?:\.\w+)*\s*[(`]|\.[A-Z]\w+(?:Error|Exception|Response|Session)\b")
_USES = re.compile(r"\b(?:using|uses?|with|via|in|import|through|usando|con|en)\s+(?:the\s+)?[`'\"]?$|(?:с помощью|используя|через|в)\s+[`'\"]?$", re.IGNORECASE)
_UNUSUAL = re.compile(r"\d|[a-z][A-Z]|[A-Z][a-z]*[A-Z]")  # no English word looks like PyQt6, music21, LattPy
_NO_LIBRARY = frozenset(("python", "python3", "standard", "external", "the", "this", "that", "a", "any", "no", "same", "base", "html5", "utf-8", "json", "sql",
                         "javascript", "typescript", "java", "mysql", "html", "xml", "csv", "pdf", "api", "ui", "node"))  # fmt: skip
_LONGEST = 60  # characters of a name
_BEFORE = 120  # characters looked at before a name
_INVENTORY = 8
"""A text that names more packages than this lists what there is; it does not ask for all of them."""
_INVENTORY_PROBABILITY = 0.1

CODE_PROBABILITY = 1.0
FENCE_PROBABILITY = 0.9

# What a `from package import name` makes of `name`: a module worth importing ahead, not a function or class.
_SUBMODULES = {
    "matplotlib": {"pyplot", "animation", "cm", "colors", "dates", "patches", "ticker", "gridspec"},
    "PIL": {"Image", "ImageDraw", "ImageFilter", "ImageFont", "ImageOps", "ImageEnhance", "ImageChops"},
    "scipy": {"stats", "optimize", "integrate", "interpolate", "linalg", "signal", "sparse", "spatial", "fft", "ndimage", "special"},
    "sklearn": {"cluster", "datasets", "decomposition", "ensemble", "feature_extraction", "linear_model", "metrics",
                "model_selection", "naive_bayes", "neighbors", "neural_network", "pipeline", "preprocessing", "svm", "tree"},
    "torch": {"nn", "optim", "cuda", "autograd"},
    "plotly": {"express", "graph_objects", "subplots", "io"},
    "skimage": {"io", "filters", "color", "measure", "morphology", "segmentation", "transform", "feature", "exposure"},
    "lxml": {"etree", "html"},
    "statsmodels": {"api"},
}  # fmt: skip


@dataclass(frozen=True)
class _Table:
    aliases: dict[str, str]
    needs_python: frozenset[str]
    words: dict[str, str]
    alternatives: list[set[str]]
    plain_probability: float
    context_probability: float


@cache
def _table() -> _Table:
    data = tomllib.loads((Path(__file__).parent / "data/mentions.toml").read_text())
    aliases = {name: names.equivalent(name) for name in data["plain"]["names"]} | data["aliases"]
    return _Table(
        aliases={alias: names.equivalent(package) for alias, package in aliases.items()},
        needs_python=frozenset(data["plain"]["needs_python"]),
        words={name: names.equivalent(names.package_for(name) or name) for name in data["words"]["names"]},
        alternatives=[{names.equivalent(name) for name in group} for group in data["alternatives"]["groups"]],
        plain_probability=data["probability"]["plain"],
        context_probability=data["probability"]["context"],
    )


@cache
def _ordinary() -> frozenset[str]:
    lines = (Path(__file__).parent / "data/ordinary.txt").read_text().splitlines()
    return frozenset(line for line in lines if not line.startswith("#"))


@dataclass(frozen=True)
class Mentions:
    """``found``: a sign of each package that a text names; ``directed``: those of them that it says to use ("using JAX", "the click library",
    `pandas==2.2`); ``rejected``: those that it says not to use."""

    found: list[Evidence]
    directed: frozenset[str]
    rejected: frozenset[str]


def mentions(text: str) -> Mentions:
    """The packages that ``text`` names."""
    table = _table()
    python = _PYTHON.search(text) is not None
    wanted: dict[str, Evidence] = {}
    directed: set[str] = set()
    rejected: set[str] = set()
    for token in _TOKEN.finditer(text):
        name = token.group().lower()
        if len(name) > _LONGEST:
            continue
        package = table.aliases.get(name) or table.words.get(name)
        before = text[max(0, token.start() - _BEFORE) : token.start()]
        if package is None:
            package = _popular(token.group(), before, text, token.end())
            if package is not None:
                wanted.setdefault(package, Evidence(package, table.context_probability, "seen", "mention"))
                directed.add(package)
            continue
        if _REJECTS.search(before):
            rejected.add(package)
            continue
        member = before[-1:] != "." and _MEMBER.match(text, token.end()) is not None
        library = _SPEAKS_OF_LIBRARY.search(before) or _IS_LIBRARY.match(text, token.end())
        if name in table.aliases:
            if not (member or library):
                if len(name) <= _SHORT and not _stands_out(token.group(), before):
                    continue
                if name in table.needs_python and not python:
                    continue
            probability = table.plain_probability
        elif library or (member and name == token.group() and _used_as_code(text, token.end())):
            probability = table.context_probability
        else:
            continue
        version = _VERSION.match(text, token.end())
        if version or library or _USES.search(before):
            directed.add(package)
        evidence = Evidence(package, probability, "seen", "mention", version[1] if version else None)
        if package not in wanted or (version and not wanted[package].version):
            wanted[package] = evidence
    found = [evidence for package, evidence in wanted.items() if package not in rejected]
    if len(found) > _INVENTORY:
        found = [Evidence(e.package, _INVENTORY_PROBABILITY, e.proposer, e.kind, e.version) for e in found]
        directed.clear()
    return Mentions(found, frozenset(directed - rejected), frozenset(rejected))


def _stands_out(name: str, before: str) -> bool:
    """Whether a short name is meant as one: `np` is, TF, "arrays in Jax"; "the cars, tf" is not."""
    return name.isupper() or name in ("plt", "sns", "cv2", "bs4") or (name.istitle() and _USES.search(before) is not None)


def _popular(name: str, before: str, text: str, end: int) -> str | None:
    """The package of a name that stands in no table, when the text presents it as a library: "the LattPy library",
    "using PyQt6", "a testbench in cocotb"; or when no other word looks like it: "QTextEdit (pyside6)"."""
    if names.rank(name) is None and names.package_for(name) is None:
        return None  # as most words; the rest is dearer to ask
    ordinary = len(name) <= _SHORT or name.lower() in _ordinary()
    unusual = _UNUSUAL.search(name) is not None
    presented = _IS_LIBRARY.match(text, end) or ((unusual or not ordinary) and _USES.search(before))
    if not (presented or (unusual and not ordinary)) or names.is_stdlib(name):
        return None
    package = names.package_for(name) or (name if names.rank(name) is not None else None)
    return names.equivalent(package) if package and name.lower() not in _NO_LIBRARY else None


def others_of(packages: set[str]) -> set[str]:
    """The packages that do the same work as one of ``packages``."""
    table = _table()
    return {other for group in table.alternatives if group & packages for other in group - packages}


def _used_as_code(text: str, position: int) -> bool:
    """Whether `requests.get(` goes on like code, not like the end of a sentence (`the requests.They`)."""
    return _USE.match(text, position) is not None


def of_found(found: Found, probability: float) -> tuple[Evidence | None, list[str]]:
    """What a find of the scanner says: evidence for a package (None when no package is known for it, or none is needed),
    and the modules that are worth importing ahead."""
    if found.kind == "pip install":
        name, _, version = found.name.partition("==")
        return Evidence(names.equivalent(name), probability, "seen", "pip install", version or None), []
    package = names.package_for(found.name)
    if package is None:
        return None, []
    modules = [found.name]
    modules += [f"{found.name}.{name}" for name in found.imported if name in _SUBMODULES.get(found.name, ())]
    return Evidence(names.equivalent(package), probability, "seen", "import"), modules
