"""The table of what a package brings along."""

import tomllib
import zipfile
from pathlib import Path

import pytest

from ephemeral_predictor.bench import closure


def wheel(folder: Path, name: str, *requirements: str) -> None:
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n" + "".join(f"Requires-Dist: {each}\n" for each in requirements))
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


def test_uv_says_what_comes_with_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel(tmp_path, "of_test_first", "of-test-second>=1", 'never; python_version < "3"')
    wheel(tmp_path, "of_test_second", "of_test_third")
    wheel(tmp_path, "of_test_third")
    for variable, value in (("UV_OFFLINE", "1"), ("UV_NO_CONFIG", "1"), ("UV_FIND_LINKS", str(tmp_path)), ("UV_CACHE_DIR", str(tmp_path / "cache"))):
        monkeypatch.setenv(variable, value)
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
    assert closure.resolve(["of-test-first"], "3.11") == {"of-test-first", "of-test-second", "of-test-third"}
    assert closure.resolve(["of-test-nowhere"], "3.11") is None


def test_the_table_is_read_as_it_was_written() -> None:
    written = tomllib.loads(closure.text({"pandas": {"six", "numpy"}, "six": set()}, {"rdkit": ["numpy"]}, {"numpy", "pandas"}, "3.11"))
    assert written == {"base": ["numpy", "pandas"], "brings": {"pandas": ["numpy", "six"]}, "kept": {"rdkit": ["numpy"]}}


def test_packages_of_three_lines_or_more_are_asked_for(tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.tsv"
    tasks.write_text("numpy,pandas\ta\nnumpy\tb\nnumpy,rare\tc\n" + "-\td\n" * 5)
    assert closure.often([tasks]) == {"numpy"}
