"""Writes ``data/closure.toml``: what each package brings along, and what the base environment holds.

    python -m ephemeral_predictor.bench.closure BASE.txt [TASKS.tsv …] [--python 3.11]

``BASE.txt`` is sandboxd's list of the base environment (``sandboxd/ephemeral_sandboxd/data/base.txt``); of the training files
(``packages<TAB>prompt``) every package that three lines or more name is asked for, and besides all that the table has already. uv
resolves each package by itself (extras that one package asks for are not another's), against the index that its variables name
(``UV_DEFAULT_INDEX``, ``UV_INDEX``, …). What it cannot resolve there keeps what stood in the table, under ``kept``.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from ephemeral import names
from ephemeral_predictor import tasks

_OFTEN = 3
_SECONDS = 300.0
_PIN = re.compile(r"([A-Za-z0-9._-]+)==")


def resolve(requirements: Iterable[str], python: str) -> set[str] | None:
    """All packages that ``requirements`` bring, themselves included; None when uv finds no solution."""
    command = [_uv(), "pip", "compile", "-", "--no-header", "--no-annotate", "--quiet", "--only-binary", ":all:", "--python-version", python]
    done = subprocess.run(command, input="\n".join(requirements), capture_output=True, text=True, timeout=_SECONDS, check=False)
    return {names.normalize(pin[1]) for line in done.stdout.splitlines() if (pin := _PIN.match(line))} if done.returncode == 0 else None


def often(files: Iterable[Path]) -> set[str]:
    """The packages that ``files`` name in three lines or more."""
    counted = Counter(name for file in files for line in file.read_text().splitlines() for name in line.partition("\t")[0].split(","))
    return {name for name, count in counted.items() if count >= _OFTEN and name != "-"}


def text(brings: Mapping[str, Iterable[str]], kept: Mapping[str, Iterable[str]], base: Iterable[str], python: str) -> str:
    """The table's text."""
    lines = [
        f"# Written by `python -m ephemeral_predictor.bench.closure` on {time.strftime('%Y-%m-%d', time.gmtime())} for Python {python}; do not edit.",
        "# What a package brings along: pandas predicted covers numpy needed.",
        "",
        "# All that is importable in every sandbox: the base environment with its dependencies.",
        f"base = {_list(base)}",
        "",
        "# Package = all that comes with it when it is installed alone, as uv resolved it.",
        "[brings]",
        *(f"{package} = {_list(brings[package])}" for package in sorted(brings) if brings[package]),
        "",
        "# Not on the index that was asked: as they stood here before (the first of them written by hand).",
        "[kept]",
        *(f"{package} = {_list(kept[package])}" for package in sorted(kept)),
    ]
    return "\n".join(lines) + "\n"


def write(base_list: Path, files: list[Path], python: str) -> None:
    """Resolve, and write the table. Says on standard error how far it is."""
    before = tasks.table()
    before = {**before["kept"], **before["brings"]}
    required = sorted({names.normalize(line.partition("#")[0].strip()) for line in base_list.read_text().splitlines()} - {""})
    brings: dict[str, set[str]] = {}
    kept: dict[str, Iterable[str]] = {}
    wanted = sorted({*required, *before, *often(files)})
    for number, package in enumerate(wanted, start=1):
        sys.stderr.write(f"\r{number}/{len(wanted)} {package:40}")
        found = resolve([package], python)
        if found is not None:
            brings[package] = found - {package}
        elif package in before:
            kept[package] = before[package]
    together = resolve(required, python)
    if together is None:
        sys.stderr.write(f"\n{base_list} has no common solution on this index: the table has what its packages bring one by one")
        together = {*required, *(name for package in required for name in brings.get(package, kept.get(package, ())))}
    tasks.CLOSURE.write_text(text(brings, kept, together, python))
    sys.stderr.write(f"\n{tasks.CLOSURE}: {len(brings)} packages resolved, {len(kept)} kept\n")


def _list(packages: Iterable[str]) -> str:
    return "[" + ", ".join(f'"{package}"' for package in sorted(packages)) + "]"


def _uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else shutil.which("uv") or "uv"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ephemeral_predictor.bench.closure", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("base", type=Path, metavar="BASE.txt")
    parser.add_argument("files", type=Path, nargs="*", metavar="TASKS.tsv")
    parser.add_argument("--python", default="3.11", help="the Python of the sandboxes")
    options = parser.parse_args()
    try:
        write(options.base, options.files, options.python)
    except (OSError, subprocess.TimeoutExpired) as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
