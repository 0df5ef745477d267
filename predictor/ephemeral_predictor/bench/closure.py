"""Writes ``data/closure.toml``: what each package brings along, and what the base environment holds.

    python -m ephemeral_predictor.bench.closure BASE.txt [TASKS.tsv …] [--popular 400] [--python 3.11]

``BASE.txt`` is sandboxd's list of the base environment (``sandboxd/ephemeral_sandboxd/data/base.txt``). Asked for are its packages, those
that three lines or more of the training files (``packages<TAB>prompt``) name, those of ``data/concepts.toml``, the most downloaded, and
all that the table has already. uv resolves each package by itself and without extras (what one package asks for is not another's), against the index that
uv's variables name (``UV_DEFAULT_INDEX``, ``UV_INDEX``, ``UV_FIND_LINKS``, …; ``UV_OFFLINE=1`` for what its cache and the directories
hold), a few at once. That is one look-up for each of hundreds of names: let it be a mirror or a directory of wheels rather than a public
index. What cannot be resolved there keeps what stood in the table, under ``kept``, with the reason.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ephemeral import names
from ephemeral_predictor import tasks

CONCEPTS = tasks.CLOSURE.with_name("concepts.toml")
_AT_ONCE = 4
_OFTEN = 3
_POPULAR = 400
_SECONDS = 300.0
_PIN = re.compile(r"([A-Za-z0-9._-]+)==")
_ABSENT = re.compile(r"no versions of|not found in|wasn't found|network was disabled|there are no wheels|has no usable wheels")


class Unresolvable(Exception):
    """uv finds no solution. The message is the reason in a few words."""


def resolve(requirements: Iterable[str], python: str) -> set[str]:
    """All packages that ``requirements`` bring, themselves included. Raises Unresolvable."""
    command = [_uv(), "pip", "compile", "-", "--no-header", "--no-annotate", "--quiet", "--only-binary", ":all:", "--python-version", python]
    try:
        done = subprocess.run(command, input="\n".join(requirements), capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise Unresolvable("no answer in time") from None
    if done.returncode:
        raise Unresolvable("no wheel there" if _ABSENT.search(" ".join(done.stderr.split())) else "no solution")
    return {names.normalize(pin[1]) for line in done.stdout.splitlines() if (pin := _PIN.match(line))}


def often(files: Iterable[Path]) -> set[str]:
    """The packages that ``files`` name in three lines or more."""
    counted = Counter(name for file in files for line in file.read_text().splitlines() for name in line.partition("\t")[0].split(","))
    return {name for name, count in counted.items() if count >= _OFTEN and name != "-"}


def concepts() -> set[str]:
    """The packages that the rules of concepts.toml speak for."""
    return {package for rule in tomllib.loads(CONCEPTS.read_text())["rule"] for package in rule["packages"]}


def text(brings: Mapping[str, Iterable[str]], kept: Mapping[str, Iterable[str]], reasons: Mapping[str, str], base: Iterable[str], python: str) -> str:
    """The table's text; ``reasons`` says of each package in ``kept`` why it could not be resolved."""
    lines = [
        f"# Written by `python -m ephemeral_predictor.bench.closure` on {time.strftime('%Y-%m-%d', time.gmtime())} for Python {python}; do not edit.",
        "# What a package brings along: pandas predicted covers numpy needed.",
        "",
        "# All that is importable in every sandbox: the base environment with its dependencies.",
        f"base = {_list(base)}",
        "",
        "# Package = all that comes with it when it is installed alone, as uv resolved it.",
        "[brings]",
        *(f"{package} = {_list(brings[package])}" for package in sorted(brings)),
        "",
        "# Could not be resolved on the index that was asked: as they stood here before (the first of them written by hand).",
        "[kept]",
        *(f"{package} = {_list(kept[package])}  # {reasons[package]}" for package in sorted(kept)),
    ]
    return "\n".join(lines) + "\n"


def write(base_list: Path, files: list[Path], popular: int, python: str) -> None:
    """Resolve, and write the table. Says on standard error how far it is."""
    table = tasks.table()
    before = {**table["kept"], **table["brings"]}
    required = sorted({names.normalize(line.partition("#")[0].strip()) for line in base_list.read_text().splitlines()} - {""})
    beneath = {name for others in table["kept"].values() for name in others}
    wanted = sorted({names.normalize(name) for name in {*required, *before, *beneath, *often(files), *concepts(), *names.most_popular(popular)}})
    brings: dict[str, set[str]] = {}
    reasons: dict[str, str] = {}

    def look(package: str) -> None:
        try:
            brings[package] = resolve([package], python) - {package}
        except Unresolvable as reason:
            reasons[package] = str(reason)
        sys.stderr.write(f"\r{len(brings) + len(reasons)}/{len(wanted)} {package:40}")

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        list(threads.map(look, wanted))
    kept = {package: before[package] for package in reasons if package in before}
    try:
        together = resolve(required, python)
    except Unresolvable as reason:
        sys.stderr.write(f"\n{base_list}, all at once: {reason} on this index. The table has what its packages bring one by one")
        together = {*required, *(name for package in required for name in brings.get(package, kept.get(package, ())))}
    tasks.CLOSURE.write_text(text(brings, kept, reasons, together, python))
    unknown = sorted(reasons.keys() - kept.keys())
    sys.stderr.write(f"\n{tasks.CLOSURE}: {len(brings)} packages resolved, {len(kept)} kept; of {len(unknown)} nothing is known: {', '.join(unknown)}\n")


def _list(packages: Iterable[str]) -> str:
    return "[" + ", ".join(f'"{package}"' for package in sorted(packages)) + "]"


def _uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else shutil.which("uv") or "uv"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ephemeral_predictor.bench.closure", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("base", type=Path, metavar="BASE.txt")
    parser.add_argument("files", type=Path, nargs="*", metavar="TASKS.tsv")
    parser.add_argument("--popular", type=int, default=_POPULAR, metavar="N", help="ask for the N most downloaded packages, too")
    parser.add_argument("--python", default="3.11", help="the Python of the sandboxes")
    options = parser.parse_args()
    try:
        write(options.base, options.files, options.popular, options.python)
    except OSError as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
