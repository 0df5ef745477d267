"""Debian's packages: where the machine's mirror is, and how to get a package from it, checked by apt's signatures.

Nothing here changes the machine's own apt configuration; only ``install`` changes the machine.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ephemeral import settings
from ephemeral_cli.errors import CommandError
from ephemeral_cli.progress import Reporter
from ephemeral_cli.setup.processes import as_root, run

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MIRROR_VARIABLE = "EPHEMERAL_DEBIAN_MIRROR"
"""For machines whose own sources are not Debian's (Ubuntu)."""


@dataclass(frozen=True)
class Source:
    """One line of apt's sources: packages at ``uri`` for ``suites``."""

    uri: str
    suites: tuple[str, ...]


def parse_list(text: str) -> Iterator[Source]:
    """The one-line format: ``deb [options] uri suite component…``. Lines that are not binary sources are passed over."""
    for line in text.splitlines():
        words = re.sub(r"\[[^]]*\]", " ", line.split("#")[0]).split()
        if len(words) >= 3 and words[0] == "deb":
            yield Source(words[1].rstrip("/"), (words[2],))


def parse_deb822(text: str) -> Iterator[Source]:
    """The ``*.sources`` format: stanzas of ``Key: value``, continued by indented lines."""
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        key = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1].isspace() and key:
                fields[key] += " " + line.strip()
            elif ":" in line:
                key, _, value = line.partition(":")
                key = key.strip().lower()
                fields[key] = value.strip()
        if fields.get("enabled", "yes").lower() in ("no", "false") or "deb" not in fields.get("types", "").split():
            continue
        for uri in fields.get("uris", "").split():
            yield Source(uri.rstrip("/"), tuple(fields.get("suites", "").split()))


def sources(directory: Path = Path("/etc/apt")) -> list[Source]:
    """All of the machine's sources, in apt's order. Files that cannot be read are passed over."""
    found: list[Source] = []
    for path in [directory / "sources.list", *sorted((directory / "sources.list.d").glob("*"))]:
        if path.suffix not in (".list", ".sources"):
            continue
        try:
            text = path.read_text(errors="replace")
        except OSError:
            continue
        found.extend(parse_deb822(text) if path.suffix == ".sources" else parse_list(text))
    return found


def mirror(directory: Path = Path("/etc/apt")) -> str:
    """The machine's mirror of Debian's main archive; the configured one where the machine has none.

    Raises CommandError when there is neither.
    """
    for source in sources(directory):
        if re.search(r"/debian$", source.uri):
            return source.uri
    if chosen := settings.get("debian_mirror"):
        return chosen
    raise CommandError("this machine's apt sources name no Debian mirror", f"export {MIRROR_VARIABLE}=… (the address of one, ending in /debian), then ephemeral setup")


def keyring() -> Path:
    """Debian's signing keys; installed from the machine's own packages where they are missing."""
    if not KEYRING.exists():
        install(["debian-archive-keyring"])
    return KEYRING


def source_line(suite: str) -> str:
    """The line that names Debian's ``suite`` on the machine's mirror, verified with Debian's keys."""
    return f"deb [signed-by={keyring()}] {mirror()} {suite} main"


def missing(packages: list[str]) -> list[str]:
    """Those of ``packages`` that are not installed on this machine."""
    if shutil.which("dpkg-query") is None:
        raise CommandError("this is not Debian or Ubuntu (there is no dpkg)", f"install by other means: {' '.join(packages)}")
    absent = []
    for package in packages:
        try:
            state = run(["dpkg-query", "-W", "-f", "${db:Status-Status}", package])
        except CommandError:
            state = ""
        if state != "installed":
            absent.append(package)
    return absent


def install(packages: list[str]) -> None:
    """Install ``packages`` with the machine's apt (as root, or with sudo). Raises CommandError with what to type."""
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    try:
        run(as_root(["apt-get", "update", "--quiet"]))
        run(as_root(command), DEBIAN_FRONTEND="noninteractive", NEEDRESTART_MODE="l")
    except CommandError as problem:
        raise CommandError(f"cannot install {' '.join(packages)}: {problem.message}", f"apt-get update && {' '.join(command)}") from None


def download(package: str, suite: str, work: Path) -> tuple[Path, str]:
    """Fetch ``package`` of Debian's ``suite`` into ``work``; return its unpacked root and its version.

    Uses an apt configuration of its own below ``work``: the machine's sources and lists stay untouched.
    """
    lists, cache = work / "lists", work / "cache"
    for directory in (lists / "partial", cache / "archives/partial"):
        directory.mkdir(parents=True, exist_ok=True)
    listed = work / f"{suite}.list"
    listed.write_text(source_line(suite) + "\n")
    options = [
        f"Dir::Etc::SourceList={listed}", "Dir::Etc::SourceParts=/dev/null", "Dir::Etc::Preferences=/dev/null",
        "Dir::Etc::PreferencesParts=/dev/null", f"Dir::State::Lists={lists}", f"Dir::Cache={cache}",
        "APT::Sandbox::User=", "Acquire::Languages=none", "Acquire::Retries=2",
    ]
    flags = [word for option in options for word in ("-o", option)]
    run(["apt-get", *flags, "update", "--quiet"])
    policy = run(["apt-cache", *flags, "policy", package])
    version = re.search(r"Candidate: (\S+)", policy)
    if version is None or version[1] == "(none)":
        raise CommandError(f"Debian's {suite} has no package {package} for this machine")
    # apt-get download writes into the current directory.
    run(["sh", "-c", 'cd "$1" && shift && exec apt-get "$@"', "sh", str(work), *flags, "download", package])
    archive = next(work.glob(f"{package}_*.deb"))
    root = work / "root"
    run(["dpkg-deb", "-x", str(archive), str(root)])
    return root, version[1]


def main(packages: list[str]) -> int:
    """``python -m ephemeral_cli.setup.debian PACKAGE…``: install those that are missing. Exit code 1 when that fails."""
    try:
        absent = missing(packages)
        if absent:
            with Reporter().step(f"installing {' '.join(absent)}"):
                install(absent)
    except CommandError as problem:
        sys.stderr.write(f"{problem.message}\n  next: {problem.hint}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
