"""Makes popular.txt.gz and modules.txt.gz, the tables behind ephemeral.names. Run by hand, once in a while:

    python -m venv /tmp/tables && /tmp/tables/bin/pip install --no-deps pyimport2pkg
    /tmp/tables/bin/python sdk/ephemeral/data/make.py POPULAR.tsv DATE

POPULAR.tsv lists PyPI's packages, a header line and then tab-separated columns, among them ``name`` and
``rank_among_15000_most_downloaded`` (empty beyond that); DATE (YYYY-MM-DD) is the day the list was made. The import names come from
the table inside ``pyimport2pkg``, of which only its data is read, then from wheels.tsv (see wheels.py), which knows better of the
packages that it has, and last from overrides.txt. README.md beside this file says which versions were used.
"""

from __future__ import annotations

import csv
import gzip
import importlib.util
import re
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent


def normalize(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def popular_names(tsv: Path) -> list[str]:
    """Normalised names, the most downloaded first."""
    with tsv.open(newline="", encoding="utf-8") as lines:
        rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        ranked = [(int(row["rank_among_15000_most_downloaded"]), normalize(row["name"])) for row in rows
                  if row["rank_among_15000_most_downloaded"]]
    return list(dict.fromkeys(name for _, name in sorted(ranked)))


def flatten(table: dict, prefix: str) -> Iterator[tuple[str, str]]:
    """pyimport2pkg's nested namespace table as (dotted module, package)."""
    for part, value in table.items():
        module = f"{prefix}.{part}" if prefix else part
        if isinstance(value, dict):
            yield from flatten(value, module)
        else:
            yield module, value if isinstance(value, str) else value[0]


def extracted(source: Path, rank: dict[str, int]) -> dict[str, list[str]]:
    """Module -> packages by pyimport2pkg's database and namespaces: only popular ones, the most downloaded, then the one of that name."""
    database = sqlite3.connect(f"file:{source / 'data' / 'mapping.db'}?mode=ro&immutable=1", uri=True)
    rows = database.execute("SELECT module_name, package_name, download_count FROM mappings JOIN packages USING (package_name)")
    best: dict[str, tuple[int, str]] = {}
    namesakes: dict[str, str] = {}
    for module, package, downloads in rows:
        name = normalize(package)
        if name in rank and re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", module):
            best[module] = max(best.get(module, (0, "")), (downloads, name))
            if normalize(module) == name:
                namesakes[module] = name
    table = {module: list(dict.fromkeys((package, namesakes.get(module, package)))) for module, (_, package) in best.items()}

    spec = importlib.util.spec_from_file_location("namespace", source / "mappings" / "namespace.py")
    assert spec is not None
    assert spec.loader is not None
    namespace = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(namespace)
    dotted = flatten(namespace.NAMESPACE_PACKAGES, "")
    table.update((module, [normalize(package)]) for module, package in dotted if normalize(package) in rank and "._" not in module)
    return table


def observed(extracted: dict[str, list[str]], wheels: dict[str, list[str]], rank: dict[str, int]) -> dict[str, list[str]]:
    """``extracted`` (module -> packages that bring it, the one to install first) set right by ``wheels`` (package -> modules that its wheel
    really brings).

    A package without modules brings those of what it depends on (``fastmcp``, ``jupyter``): it keeps what it had, but no guess is made of
    its name. First is who is seen to bring a module, of several the one of its name, else the most downloaded. A namespace all of whose
    modules come with one package stands in one row.
    """
    def place(package: str, module: str) -> tuple[bool, bool, int]:
        namesake = package == normalize(module)
        seen = module in wheels.get(package, ()) or (namesake and wheels.get(package) == [])
        return not seen, not namesake, rank[package]

    table = {module: left for module, packages in extracted.items()
             if (left := [each for each in packages if not wheels.get(each) or any(_overlap(module, own) for own in wheels[each])])}
    for package, modules in wheels.items():
        for module in modules:
            table[module] = sorted({*table.get(module, ()), package}, key=lambda package: place(package, module))
    owners: dict[str, set[str]] = {}
    for module, those in table.items():
        while module:
            owners.setdefault(module, set()).update(those)
            module = module.rpartition(".")[0]
    whole = {module: next(iter(those)) for module, those in owners.items() if len(those) == 1 and those & wheels.keys()}
    for module, package in whole.items():
        if module.rpartition(".")[0] in whole:
            table.pop(module, None)
        else:
            table[module] = [package]
    for package in (package for package, modules in wheels.items() if not modules):
        table.setdefault(package.replace("-", "_"), ["-"])
    return table


def _overlap(module: str, other: str) -> bool:
    """Whether one of the two lies in the other, or they are the same."""
    return f"{module}.".startswith(f"{other}.") or f"{other}.".startswith(f"{module}.")


def wheels() -> dict[str, list[str]]:
    """wheels.tsv: package -> modules."""
    rows = (line.split("\t") for line in (HERE / "wheels.tsv").read_text().splitlines()[1:])
    return {package: modules.split() for package, _, modules in rows}


def write(path: Path, lines: list[str]) -> None:
    """The same input gives the same bytes: no time stamp in the gzip header."""
    path.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))


def main(tsv: str, date: str) -> None:
    found = importlib.util.find_spec("pyimport2pkg")
    if found is None or found.origin is None:
        raise SystemExit("pyimport2pkg is not installed in this Python: see the top of this file")
    names = popular_names(Path(tsv))
    rank = {name: place for place, name in enumerate(names, start=1)}
    table = observed(extracted(Path(found.origin).parent, rank), wheels(), rank)
    for line in (HERE / "overrides.txt").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            module, *packages = line.split()
            table[module] = packages
    # What names.py fills in for a row without a package is this simpler form.
    rows = [module if [module.lower().replace("_", "-")] == packages else " ".join((module, *packages)) for module, packages in sorted(table.items())]
    write(HERE / "popular.txt.gz", [f"# PyPI's {len(names)} most downloaded packages of {date}, the most downloaded first", *names])
    write(HERE / "modules.txt.gz", ["# import name, the PyPI packages that bring it, the one to install first (left out where it is the same; - for none)", *rows])
    sys.stdout.write(f"{len(names)} popular packages, {len(rows)} import names\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(sys.argv[1], sys.argv[2])
