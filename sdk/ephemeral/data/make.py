"""Makes popular.txt.gz and modules.txt.gz, the tables behind ephemeral.names. Run by hand, once in a while:

    python -m venv /tmp/tables && /tmp/tables/bin/pip install --no-deps pyimport2pkg
    /tmp/tables/bin/python sdk/ephemeral/data/make.py POPULAR.tsv DATE

POPULAR.tsv lists PyPI's packages, a header line and then tab-separated columns, among them ``name`` and
``rank_among_15000_most_downloaded`` (empty beyond that); DATE (YYYY-MM-DD) is the day the list was made. The import names come from
the table inside ``pyimport2pkg``, of which only its data is read. README.md beside this file says which versions were used.
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


def extracted(source: Path, rank: dict[str, int]) -> dict[str, str]:
    """Module -> package by pyimport2pkg's database and namespaces: only popular packages, the most downloaded one wins."""
    database = sqlite3.connect(f"file:{source / 'data' / 'mapping.db'}?mode=ro&immutable=1", uri=True)
    rows = database.execute("SELECT module_name, package_name, download_count FROM mappings JOIN packages USING (package_name)")
    best: dict[str, tuple[int, str]] = {}
    for module, package, downloads in rows:
        name = normalize(package)
        if name in rank and re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", module):
            best[module] = max(best.get(module, (0, "")), (downloads, name))
    table = {module: package for module, (_, package) in best.items()}

    spec = importlib.util.spec_from_file_location("namespace", source / "mappings" / "namespace.py")
    assert spec is not None
    assert spec.loader is not None
    namespace = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(namespace)
    dotted = flatten(namespace.NAMESPACE_PACKAGES, "")
    table.update((module, normalize(package)) for module, package in dotted if normalize(package) in rank and "._" not in module)
    return table


def write(path: Path, lines: list[str]) -> None:
    """The same input gives the same bytes: no time stamp in the gzip header."""
    path.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))


def main(tsv: str, date: str) -> None:
    found = importlib.util.find_spec("pyimport2pkg")
    if found is None or found.origin is None:
        raise SystemExit("pyimport2pkg is not installed in this Python: see the top of this file")
    names = popular_names(Path(tsv))
    rank = {name: place for place, name in enumerate(names, start=1)}
    table = extracted(Path(found.origin).parent, rank)
    for line in (HERE / "overrides.txt").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            module, package = line.split()
            table[module] = package
    # What names.py fills in for a row without a package is this simpler form.
    rows = [module if module.lower().replace("_", "-") == package else f"{module} {package}" for module, package in sorted(table.items())]
    write(HERE / "popular.txt.gz", [f"# PyPI's most downloaded packages of {date}, the most downloaded first", *names])
    write(HERE / "modules.txt.gz", ["# import name, PyPI package (left out where it is the same; - for none)", *rows])
    sys.stdout.write(f"{len(names)} popular packages, {len(rows)} import names\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(sys.argv[1], sys.argv[2])
