"""The table of what a package brings along."""

from __future__ import annotations

import tomllib
import zipfile
from pathlib import Path

import pytest

from ephemeral import names
from ephemeral_predictor import tasks
from ephemeral_predictor.bench import closure
from ephemeral_sandboxd.environments.index import Index, without_login
from ephemeral_sandboxd.environments.target import Target

FACTS = {
    # package: what it brings, and what many think that it brings. All of the base environment, which every installation resolves.
    "requests": ({"urllib3", "certifi", "idna", "charset-normalizer"}, {"httpx", "beautifulsoup4"}),
    "pandas": ({"numpy", "python-dateutil"}, {"matplotlib", "openpyxl", "scipy"}),
    "matplotlib": ({"numpy", "pillow", "cycler", "kiwisolver", "pyparsing", "contourpy", "fonttools", "python-dateutil"}, {"pandas", "scipy"}),
    "seaborn": ({"pandas", "numpy", "matplotlib", "pillow", "python-dateutil"}, {"scipy", "statsmodels"}),
    "scikit-learn": ({"numpy", "scipy", "joblib", "threadpoolctl"}, {"pandas", "matplotlib"}),
    "scikit-image": ({"numpy", "scipy", "networkx", "pillow", "imageio", "tifffile"}, {"matplotlib", "opencv-python-headless"}),
    "statsmodels": ({"numpy", "scipy", "pandas", "patsy", "packaging"}, {"matplotlib", "scikit-learn"}),
    "torch": ({"sympy", "mpmath", "networkx", "jinja2", "markupsafe", "filelock", "fsspec", "typing-extensions"}, {"torchvision", "pandas"}),
    "plotly": ({"narwhals", "packaging"}, {"pandas", "numpy"}),
    "flask": ({"werkzeug", "jinja2", "click", "itsdangerous", "blinker", "markupsafe"}, {"requests", "sqlalchemy"}),
    "fastapi": ({"pydantic", "pydantic-core", "starlette", "anyio"}, {"uvicorn", "httpx"}),
    "python-pptx": ({"lxml", "pillow", "xlsxwriter"}, {"python-docx"}),
    "textblob": ({"nltk", "regex", "joblib", "click", "tqdm"}, {"numpy"}),
    "beautifulsoup4": ({"soupsieve"}, {"lxml", "requests"}),
}
TABLE = tasks.table()


def wheel(folder: Path, name: str, *requirements: str) -> None:
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n" + "".join(f"Requires-Dist: {each}\n" for each in requirements))
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def wheels_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is all the index there is."""
    for variable, value in (("UV_OFFLINE", "1"), ("UV_NO_CONFIG", "1"), ("UV_FIND_LINKS", str(tmp_path)), ("UV_CACHE_DIR", str(tmp_path / "cache"))):
        monkeypatch.setenv(variable, value)
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
    return tmp_path


def test_uv_says_what_comes_with_a_package(wheels_only: Path) -> None:
    wheel(wheels_only, "of_test_first", "of-test-second>=1", 'never; python_version < "3"', 'extra-only; extra == "all"')
    wheel(wheels_only, "of_test_second", "of_test_third")
    wheel(wheels_only, "of_test_third")
    assert closure.resolve(["of-test-first"], "3.11") == {"of-test-first", "of-test-second", "of-test-third"}


def test_what_cannot_be_resolved_says_why(wheels_only: Path) -> None:
    wheel(wheels_only, "of_test_first", "of_test_third<1")
    wheel(wheels_only, "of_test_third")
    with pytest.raises(closure.Unresolvable, match="no wheel there"):
        closure.resolve(["of-test-nowhere"], "3.11")
    with pytest.raises(closure.Unresolvable, match="no solution"):
        closure.resolve(["of-test-first", "of-test-third>=1"], "3.11")


def test_the_table_is_read_as_it_was_written() -> None:
    text = closure.text({"pandas": {"six", "numpy"}, "six": set()}, {"rdkit": ["numpy"]}, {"rdkit": "no wheel there"}, {"numpy", "pandas"}, "3.11")
    assert tomllib.loads(text) == {"base": ["numpy", "pandas"], "brings": {"pandas": ["numpy", "six"], "six": []}, "kept": {"rdkit": ["numpy"]}}
    assert 'rdkit = ["numpy"]  # no wheel there' in text.splitlines()


def test_packages_of_three_lines_or_more_and_those_of_the_concepts_are_asked_for(tmp_path: Path) -> None:
    lines = tmp_path / "tasks.tsv"
    lines.write_text("numpy,pandas\ta\nnumpy\tb\nnumpy,rare\tc\n" + "-\td\n" * 5)
    assert closure.often([lines]) == {"numpy"}
    assert {"pandas", "pillow"} <= closure.concepts()


def test_the_table_is_large_and_agrees_with_itself() -> None:
    assert len(TABLE["brings"]) > 300
    assert len(TABLE["brings"]) + len(TABLE["kept"]) > 450
    assert not TABLE["kept"].keys() & TABLE["brings"].keys()
    for package, others in {**TABLE["brings"], **TABLE["kept"]}.items():
        assert package not in others
        assert all(name == names.normalize(name) for name in (package, *others))
    assert set(closure.concepts()) <= TABLE["brings"].keys() | TABLE["kept"].keys()
    outside = {name for package in TABLE["base"] for name in TABLE["brings"].get(package, ())} - set(TABLE["base"])
    # Resolved as one, a package may have to be an older version, which brings something else.
    assert len(outside) <= 3, f"the base environment does not hold {sorted(outside)}, which its packages bring"


@pytest.mark.parametrize("package", FACTS)
def test_what_is_known_of_a_package_is_in_the_table(package: str) -> None:
    brings, not_so = FACTS[package]
    assert brings <= set(TABLE["brings"][package])
    assert not not_so & set(TABLE["brings"][package])
    reached = tasks.covered([package])
    assert {names.equivalent(name) for name in brings} <= reached
    assert not {names.equivalent(name) for name in not_so} & reached


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uv")


@pytest.mark.parametrize("package", FACTS)
def test_what_is_known_of_a_package_is_what_uv_resolves_today(package: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    brings, not_so = FACTS[package]
    index = Index.configured(Target())
    for variable, value in index.environment(cache).items():
        monkeypatch.setenv(variable, value)
    try:
        resolved = closure.resolve([package], index.target.python)
    except closure.Unresolvable as reason:
        pytest.fail(f"{without_login(index.url) or 'the default index'} did not give {package}: {reason}")
    assert brings <= resolved
    assert not not_so & resolved
