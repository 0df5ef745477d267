"""Makes wheels.tsv: what real wheels bring, read from the wheels themselves. Run by hand, before make.py, which takes its rows in:

    python sdk/ephemeral/data/wheels.py FOLDER…

Every ``*.whl`` in the folders is looked into, and every ``*.dist-info`` of what is installed there (so a virtual environment's
``site-packages`` will do); nothing is run and nothing is downloaded. Of several versions the newest counts. Only popular packages
(popular.txt.gz) are written, and the rows of packages that lie in none of the folders stay.
"""

from __future__ import annotations

import gzip
import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path, PurePosixPath
from typing import Any, cast
from zipfile import BadZipFile
from zipfile import Path as ZipPath

from packaging.utils import canonicalize_name
from packaging.version import Version

HERE = Path(__file__).parent
TABLE = HERE / "wheels.tsv"
_HEAD = "# package, version, what its wheel lets one import (dotted where only that much is its own); made by wheels.py"
_MODULE = re.compile(r"(?!lib\w+\.so$|\w+__mypyc\.)([A-Za-z]\w*|__init__)(?:\.py|(?:\.abi3|\.cpython-[\w-]+)?\.so|\.pyd)", re.ASCII)
"""A file that can be imported; not a shared object that is only there to be linked to."""
_FOLDER = re.compile(r"[A-Za-z]\w*", re.ASCII)
_STRAY = {"benchmarks", "build", "doc", "docs", "example", "examples", "scripts", "setup", "test", "tests", "tools"}
"""What a project's own folders are called, which some wheels hold by mistake."""
_SHARED = re.compile(r"\b(?:extend_path|declare_namespace)\b")


def modules(distribution: Distribution) -> set[str]:
    """The import names that ``distribution`` brings, without private ones.

    A directory without an ``__init__`` is a namespace that others may share, and so is one whose ``__init__`` says that it is: what
    lies in it goes by its dotted name (``google.cloud.storage``), down to the first directory that is this distribution's alone.
    """
    stray = _STRAY - {canonicalize_name(distribution.name)}
    places = [_place(PurePosixPath(path)) for path in distribution.files or ()]
    files = [(place.parent, match[1]) for place in places if (match := _MODULE.fullmatch(place.name)) and all(map(_FOLDER.fullmatch, place.parent.parts))]
    files = [(folder, name) for folder, name in files if (*folder.parts, name)[0] not in stray]
    shared = {PurePosixPath(*name.split(".")) for name in (distribution.read_text("namespace_packages.txt") or "").split()}
    own = {folder for folder, name in files if name == "__init__" and folder not in shared and not _is_shared(distribution, folder)}
    found: set[str] = set()
    for folder, name in files:
        outermost = next((each for each in (*reversed(folder.parents), folder) if each in own), None)
        if outermost is not None:
            found.add(".".join(outermost.parts))
        elif name != "__init__":
            found.add(".".join((*folder.parts, name)))
    return found


def _place(path: PurePosixPath) -> PurePosixPath:
    """Where a wheel's file ends up: some lie in ``NAME.data/purelib/``, some in a prefix of their own that a ``.pth`` leads to (cmeel)."""
    if "site-packages" in path.parts:
        return PurePosixPath(*path.parts[path.parts.index("site-packages") + 1:])
    if len(path.parts) > 2 and path.parts[0].endswith(".data") and path.parts[1] in ("purelib", "platlib"):
        return PurePosixPath(*path.parts[2:])
    return path


def _is_shared(distribution: Distribution, folder: PurePosixPath) -> bool:
    """Whether ``folder``'s ``__init__.py`` makes it a namespace of the old kind."""
    if len(folder.parts) > 2:
        return False
    try:
        return _SHARED.search(cast(Any, distribution.locate_file(f"{folder}/__init__.py")).read_bytes().decode(errors="replace")) is not None
    except (OSError, KeyError):
        return False  # an extension module, or a file that was listed and is not there


def distributions(folder: Path) -> Iterator[Distribution]:
    """The wheels in ``folder``, and what is installed there. What is no wheel is said on standard error."""
    for wheel in sorted(folder.glob("*.whl")):
        try:
            yield PathDistribution(cast(Any, next(entry for entry in ZipPath(wheel).iterdir() if entry.name.endswith(".dist-info"))))
        except (BadZipFile, OSError, StopIteration) as problem:
            sys.stderr.write(f"{wheel} is not a wheel: {problem!r}\n")
    for info in sorted(folder.glob("*.dist-info")):
        yield PathDistribution(info)


def table() -> dict[str, tuple[str, list[str]]]:
    """wheels.tsv as it stands: package -> (version, modules)."""
    rows = [line.split("\t") for line in TABLE.read_text().splitlines()[1:]] if TABLE.exists() else []
    return {package: (version, modules.split()) for package, version, modules in rows}


def main(folders: list[str]) -> None:
    popular = set(gzip.decompress((HERE / "popular.txt.gz").read_bytes()).decode().splitlines()[1:])
    newest: dict[str, Distribution] = {}
    for folder in folders:
        for distribution in distributions(Path(folder)):
            package = str(canonicalize_name(distribution.name))
            if package in popular and (package not in newest or Version(distribution.version) > Version(newest[package].version)):
                newest[package] = distribution
    rows = table()
    for name, distribution in newest.items():
        rows[name] = distribution.version, sorted(modules(distribution))
    TABLE.write_text("\n".join([_HEAD, *("\t".join((package, version, " ".join(found))) for package, (version, found) in sorted(rows.items()))]) + "\n")
    sys.stdout.write(f"{len(newest)} wheels read, {len(rows)} packages in {TABLE}\n")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    main(sys.argv[1:])
