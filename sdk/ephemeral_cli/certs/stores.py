"""The machine's own trust store: our certificate put into it, and taken out again."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ephemeral import settings
from ephemeral_cli.errors import CommandError

FILE = "ephemeral.crt"
PATIENCE_SECONDS = 120


@dataclass(frozen=True)
class Store:
    """``anchors`` is where an administrator's own roots lie; ``command`` makes what programs read out of them, with ``fresh`` also
    where one is gone."""

    anchors: Path
    command: Path
    fresh: tuple[str, ...]

    @property
    def file(self) -> Path:
        return self.anchors / FILE


_KNOWN = (
    ("usr/local/share/ca-certificates", "update-ca-certificates", ("--fresh",)),  # Debian, Ubuntu: else its links stay, and lead nowhere
    ("etc/pki/ca-trust/source/anchors", "update-ca-trust", ()),  # Fedora, RHEL
)


def find(root: Path = Path("/")) -> Store | None:
    """The store of the machine whose files begin at ``root``; None for one that we do not know."""
    for anchors, command, fresh in _KNOWN:
        for folder in ("usr/sbin", "usr/bin", "sbin", "bin"):
            store = Store(root / anchors, root / folder / command, fresh)
            if store.anchors.is_dir() and os.access(store.command, os.X_OK):
                return store
    return None


def trusted(root: Path = Path("/")) -> bytes | None:
    """The certificate of ours that the store holds; None where it holds none."""
    store = find(root)
    try:
        return store.file.read_bytes() if store else None
    except OSError:
        return None


def trust(certificate: Path, root: Path = Path("/")) -> list[str]:
    """Put ``certificate`` (PEM) into the store, in place of an earlier one; what was done, in sentences. Raises CommandError."""
    store = _writable("trust", f"put {certificate} there by its own means, and take it out by them", root)
    try:
        content = certificate.read_bytes()
        before = trusted(root)
        if before != content:
            _replace(store.file, content)
        try:
            ran = _make(store, ())
        except CommandError:
            if before is None:
                store.file.unlink(missing_ok=True)
            raise
    except OSError as problem:
        raise CommandError(f"{problem.filename} cannot be used: {problem.strerror}", "ephemeral certs show") from None
    copied = f"{store.file} is there already" if before == content else f"{certificate} was copied to {store.file}"
    return [f"{copied}{' in place of an earlier one' if before not in (None, content) else ''}.", ran]


def untrust(root: Path = Path("/")) -> list[str]:
    """Take our certificate out of the store, whichever it is; what was done, in sentences. Does no harm twice. Raises CommandError."""
    store = _writable("untrust", "take Ephemeral's certificate out by its own means", root)
    there = store.file.exists()
    try:
        store.file.unlink(missing_ok=True)
    except OSError as problem:
        raise CommandError(f"{store.file} cannot be removed: {problem.strerror}") from None
    # Also where the file was gone: whoever removed it may not have come to this.
    return [f"{store.file} {'was removed' if there else 'is not there'}.", _make(store, store.fresh)]


def _writable(command: str, by_hand: str, root: Path) -> Store:
    store = find(root)
    if store is None:
        raise CommandError("this machine's trust store is not one that we know (Debian, Ubuntu, Fedora, RHEL)", by_hand)
    if not os.access(store.anchors, os.W_OK):
        again = f"sudo env EPHEMERAL_STATE={shlex.quote(str(settings.get('state')))} {shlex.quote(sys.argv[0])} certs {command}"
        raise CommandError(f"this machine's trust store ({store.anchors}) is root's to change", again)
    return store


def _replace(path: Path, content: bytes) -> None:
    """In one step, and readable by all: it is no secret. The name in between is none that the commands take up."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.chmod(0o644)
    new.replace(path)


def _make(store: Store, options: tuple[str, ...]) -> str:
    command = shlex.join([str(store.command), *options])
    try:
        done = subprocess.run([store.command, *options], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise CommandError(f"{command} could not be run: {problem}") from None
    if done.returncode:
        raise CommandError(f"{command} failed: {done.stderr.strip()[-300:]}", f"run {command} and see")
    return f"{command} was run."
