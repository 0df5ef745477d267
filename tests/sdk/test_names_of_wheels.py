"""The tables of names against what real wheels bring.

``wheels.tsv`` is what some nine hundred wheels were found to bring on the day it was made; what is installed here, and what the index has today,
say whether that was read rightly and still holds.
"""

from __future__ import annotations

import io
import os
import subprocess
import tomllib
import zipfile
from importlib.machinery import PathFinder
from importlib.metadata import Distribution, PathDistribution, distributions
from pathlib import Path

import httpx
import pytest

from ephemeral import names
from ephemeral.data import wheels
from ephemeral_sandboxd.environments.index import Index, without_login
from ephemeral_sandboxd.environments.target import Target

WHEELS = wheels.table()
SIBLINGS = {
    # (the package that is meant, another that brings the same module): a part that comes along with it, or what may stand in for it.
    ("fastmcp", "fastmcp-slim"), ("griffe", "griffelib"), ("jupyter", "jupyter-core"), ("py", "pytest"), ("pygame", "pygame-ce"), ("pyside6", "pyside6-essentials"),
}
OWN_NAMES = {"build"}
"""Packages whose module's name is one that programs give their own files: overrides.txt says that the import means nothing."""

FROM_THE_INDEX = {
    # All of the base environment, which every installation fetches; their import names differ from the package's.
    "beautifulsoup4": {"bs4"}, "opencv-python-headless": {"cv2"}, "pillow": {"PIL"}, "pycryptodome": {"Crypto"}, "python-dateutil": {"dateutil"},
    "python-docx": {"docx"}, "python-dotenv": {"dotenv"}, "python-pptx": {"pptx"}, "pyyaml": {"yaml"}, "scikit-image": {"skimage"}, "scikit-learn": {"sklearn"},
}


def disagreements(package: str, modules: set[str]) -> list[str]:
    """Where ``names`` is at odds with a wheel of ``package`` that brings ``modules``."""
    wrong = []
    worth = names.modules_for(package)
    if modules and not worth and package not in OWN_NAMES:
        wrong.append(f"{package} brings {sorted(modules)}, modules_for knows none")
    if modules:
        wrong += [f"{package} does not bring {name}, which modules_for says" for name in worth if not any(_overlap(name, module) for module in modules)]
    for module in sorted(modules):
        found = names.package_for(module)
        right = found is not None and (names.equivalent(found) == names.equivalent(package) or (found, package) in SIBLINGS)
        if not right and not names.is_stdlib(module) and package not in OWN_NAMES:
            wrong.append(f"{module} comes with {package}, package_for says {found}")
    return wrong


def _overlap(module: str, other: str) -> bool:
    return f"{module}.".startswith(f"{other}.") or f"{other}.".startswith(f"{module}.")


def test_the_table_of_wheels_is_large_and_holds_the_most_used() -> None:
    assert len(WHEELS) > 900
    most = names.most_popular(200)
    assert len([package for package in most if package in WHEELS]) > 150, [package for package in most if package not in WHEELS]


def test_every_wheel_that_was_read_agrees_with_the_names() -> None:
    wrong = [line for package, (_, modules) in WHEELS.items() for line in disagreements(package, set(modules))]
    assert not wrong, "\n".join(wrong)


def test_what_is_installed_here_agrees_with_the_names() -> None:
    wrong, read = [], 0
    for distribution in distributions():
        package = names.normalize(distribution.name)
        if names.rank(package) is not None:
            read += 1
            wrong += disagreements(package, wheels.modules(distribution))
    assert read > 100
    assert not wrong, "\n".join(wrong)


def test_the_modules_read_off_a_wheel_are_those_that_python_finds_there() -> None:
    looked = 0
    for distribution in distributions():
        root = str(distribution.locate_file(""))
        for module in wheels.modules(distribution):
            looked += 1
            path, parts = [root], module.split(".")
            for part in parts:
                spec = PathFinder.find_spec(part, path)
                assert spec is not None, f"{distribution.name} is said to bring {module}"
                path = list(spec.submodule_search_locations or [])
            assert spec is not None
            assert spec.loader is not None, f"{module} of {distribution.name} is a namespace only"
    assert looked > 100


def wheel(folder: Path, files: dict[str, str], name: str = "of_test") -> Distribution:
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/RECORD", "".join(f"{file},,\n" for file in files))
    [found] = wheels.distributions(folder)
    return found


@pytest.mark.parametrize(("files", "modules"), [
    ({"of_test/__init__.py": "", "of_test/deep/__init__.py": "", "of_test/deep/x.py": ""}, {"of_test"}),
    ({"one.py": "", "_private.py": "", "fast.cpython-311-x86_64-linux-gnu.so": "", "libfast.so": "", "plain.abi3.so": ""}, {"one", "fast", "plain"}),
    ({"google/cloud/thing/__init__.py": "", "google/cloud/thing/x.py": "", "google/cloud/loose.py": ""}, {"google.cloud.thing", "google.cloud.loose"}),
    ({"old/__init__.py": "__path__ = __import__('pkgutil').extend_path(__path__, __name__)", "old/mine/__init__.py": ""}, {"old.mine"}),
    ({"of_test-1.0.data/purelib/moved/__init__.py": "", "of_test-1.0.data/scripts/run.py": ""}, {"moved"}),
    ({"tests/__init__.py": "", "docs/conf.py": "", "setup.py": "", "real/__init__.py": ""}, {"real"}),
    ({"bin-dir/x.py": "", "of_test.pth": "", "data.txt": ""}, set()),
], ids=["package", "modules", "namespace", "old namespace", "data directory", "stray", "nothing"])
def test_a_wheel_tells_what_it_lets_one_import(tmp_path: Path, files: dict[str, str], modules: set[str]) -> None:
    assert wheels.modules(wheel(tmp_path, files)) == modules


def test_what_is_no_wheel_is_said_and_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken-1.0-py3-none-any.whl").write_bytes(b"PK\x05\x06 nothing")
    assert list(wheels.distributions(tmp_path)) == []
    assert "broken-1.0-py3-none-any.whl is not a wheel" in capsys.readouterr().err


class Ranges(io.RawIOBase):
    """A file on an index, of which only what is read is fetched; all of it where the index serves no ranges."""

    def __init__(self, client: httpx.Client, url: str) -> None:
        self._client, self._url, self._at = client, url, 0
        first = client.get(url, headers={"Range": "bytes=-65536"})
        first.raise_for_status()
        ranged = first.status_code == 206
        self.size = int(first.headers["Content-Range"].rpartition("/")[2]) if ranged else len(first.content)
        self._start, self._tail = self.size - len(first.content), first.content

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self.size if size < 0 else min(self._at + size, self.size)
        if end <= self._at:
            return b""
        if self._at >= self._start:
            data = self._tail[self._at - self._start:end - self._start]
        else:
            answer = self._client.get(self._url, headers={"Range": f"bytes={self._at}-{end - 1}"})
            assert answer.status_code == 206, f"{self._url} served a range once, and now {answer.status_code}"
            data = answer.content
        self._at += len(data)
        return data


@pytest.fixture(scope="module")
def index() -> Index:
    return Index.configured(Target())


@pytest.fixture(scope="module")
def addresses(index: Index, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Package -> the wheel that the configured index has for a sandbox today."""
    command = [index.uv, "pip", "compile", "-", "--no-deps", "--format", "pylock.toml", "--quiet", *index.arguments]
    done = subprocess.run(command, input="\n".join(FROM_THE_INDEX), env=index.environment(tmp_path_factory.mktemp("uv")), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{without_login(index.url) or 'the default index'} did not answer for the names of {len(FROM_THE_INDEX)} packages: {done.stderr}"
    addresses = {}
    for package in tomllib.loads(done.stdout)["packages"]:
        fitting = [(preference, each["url"]) for each in package["wheels"] if (preference := index.target.preference(each["url"].rpartition("/")[2])) is not None]
        addresses[package["name"]] = min(fitting)[1]
    return addresses


@pytest.mark.parametrize("package", FROM_THE_INDEX)
def test_what_the_index_has_today_agrees_with_the_names(package: str, index: Index, addresses: dict[str, str]) -> None:
    url = addresses[package]
    try:
        with httpx.Client(verify=index.tls(), follow_redirects=True, timeout=30) as client, zipfile.ZipFile(Ranges(client, url)) as archive:  # type: ignore[arg-type]
            info = next(entry for entry in zipfile.Path(archive).iterdir() if entry.name.endswith(".dist-info"))
            brought = wheels.modules(PathDistribution(info))  # type: ignore[arg-type]
    except httpx.HTTPError as problem:
        pytest.fail(f"{without_login(index.url) or 'the default index'} did not serve {url.rpartition('/')[2]}: {problem!r}")
    assert FROM_THE_INDEX[package] <= brought
    assert not disagreements(package, brought)
    assert all(names.package_for(module) == package for module in FROM_THE_INDEX[package])
