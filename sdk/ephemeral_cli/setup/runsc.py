"""A usable runsc: one that is there, else upstream's release, else Debian 13's package.

Which is not usable: Debian 12's (2022: no systrap platform) and the rebuild of the 20240729 version with Go 1.26, which
panics in about 3 % of its starts while ``runsc --version`` shows the same text as the sound one.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from ephemeral import settings
from ephemeral_cli.errors import CommandError
from ephemeral_cli.progress import Reporter, Step
from ephemeral_cli.setup import debian
from ephemeral_cli.setup.processes import run

UPSTREAM = "https://storage.googleapis.com/gvisor/releases/release/latest"
DEBIAN_SUITE = "trixie"
STRANGER_STARTS = 20
"""Starts that a runsc we did not choose must survive: the known bad build fails one in thirty, so this is a second net
below the check of its build."""
KNOWN_STARTS = 2
START_TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Runsc:
    """A runsc in the store. ``origin`` says where it came from, in words."""

    path: str
    version: str
    origin: str
    sha256: str
    size_bytes: int


def recorded(store: Path) -> Runsc | None:
    """The runsc that setup put into ``store``, if it is still there as recorded."""
    try:
        found = Runsc(**json.loads((store / "runsc.json").read_text()))
        whole = Path(found.path).stat().st_size == found.size_bytes and os.access(found.path, os.X_OK)
    except (OSError, ValueError, TypeError):
        return None
    return found if whole else None


def go_version(binary: bytes) -> tuple[int, int] | None:
    """The Go release (major, minor) that built ``binary``, from its build information."""
    start = binary.find(b"\xff Go buildinf:")
    match = re.search(rb"go(\d+)\.(\d+)", binary[start + 32 : start + 64]) if start >= 0 else None
    return (int(match[1]), int(match[2])) if match else None


def version(path: Path) -> str:
    """First line of ``runsc --version``, without the words before the number."""
    first = (run([str(path), "--version"]).splitlines() or [""])[0]
    return first.removeprefix("runsc version ").strip()


def unusable(path: Path, starts: int, step: Step | None = None) -> str:
    """Why the runsc at ``path`` cannot be used here; empty when it can: ``starts`` sandboxes started and ended well."""
    if not os.access(path, os.X_OK):
        return "it is not an executable file"
    try:
        text = version(path)
    except CommandError as problem:
        return problem.message
    year = re.search(r"(20\d\d)\d{4}", text)
    if year and int(year[1]) < 2023:
        return f"{text} is too old: it has no systrap platform"
    built = go_version(path.read_bytes())
    if "20240729" in text and built and built >= (1, 26):
        return f"{text} built with Go {built[0]}.{built[1]} panics at random"
    with tempfile.TemporaryDirectory(prefix="ephemeral-runsc-") as root:
        # `do` mounts the host's root read-only into a sandbox without a network, runs one program and ends.
        command = [str(path), f"--root={root}", "--network=none", "--platform=systrap", "--ignore-cgroups", "do", "/bin/true"]
        for number in range(starts):
            if step:
                step.update(number, starts, "trying it")
            try:
                done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=START_TIMEOUT_SECONDS, check=False)
            except subprocess.TimeoutExpired:
                return f"a sandbox did not start within {START_TIMEOUT_SECONDS} s"
            if done.returncode:
                words = (done.stderr or done.stdout).strip().splitlines()
                return f"start {number + 1} of {starts} failed ({done.returncode}): {words[-1][:300] if words else 'no words'}"
    return ""


def ensure(store: Path, report: Reporter) -> Runsc:
    """The runsc of ``store``; found, checked and put there first when need be. Raises CommandError with what to type."""
    have = recorded(store)
    configured = settings.get("runsc")
    if have and (configured is None or Path(have.origin) == configured):
        return have
    with report.step("runsc (gVisor)") as step:
        tried: list[str] = []
        if configured is not None:
            why = unusable(configured, STRANGER_STARTS, step)
            if why:
                raise CommandError(f"EPHEMERAL_RUNSC is {configured}: {why}", "unset EPHEMERAL_RUNSC, then `ephemeral setup`")
            return _publish(store, configured, str(configured))
        for candidate in _candidates():
            why = unusable(candidate, STRANGER_STARTS, step)
            if not why:
                return _publish(store, candidate, str(candidate))
            tried.append(f"{candidate}: {why}")
        with tempfile.TemporaryDirectory(prefix="ephemeral-setup-") as work:
            for source in (_upstream, _debian):
                try:
                    path, origin = source(Path(work), step)
                except (CommandError, OSError) as problem:
                    tried.append(f"{source.__doc__}: {problem}")
                    continue
                why = unusable(path, KNOWN_STARTS, step)
                if not why:
                    return _publish(store, path, origin)
                tried.append(f"{origin}: {why}")
    raise CommandError("no usable runsc: " + "; ".join(tried), "install gVisor (https://gvisor.dev/docs/user_guide/install), then EPHEMERAL_RUNSC=/path/to/runsc ephemeral setup")


def _candidates() -> list[Path]:
    """runsc of PATH, and the one that Docker's engine is configured with."""
    found = [shutil.which("runsc")]
    if shutil.which("docker"):
        try:
            runtimes = json.loads(run(["timeout", "5", "docker", "info", "--format", "{{json .Runtimes}}"]))
            found.append((runtimes.get("runsc") or {}).get("path"))
        except (CommandError, ValueError, AttributeError):
            pass  # no engine answers: then it has no runsc either
    paths = [Path(path).resolve() for path in found if path and Path(path).exists()]
    return list(dict.fromkeys(paths))


def _upstream(work: Path, step: Step) -> tuple[Path, str]:
    """upstream's release"""

    address = f"{UPSTREAM}/{platform.machine()}/runsc"
    path = work / "runsc"
    digest = hashlib.sha512()
    try:
        with httpx.Client(timeout=httpx.Timeout(30, connect=4), follow_redirects=True) as client:
            checksum = client.get(f"{address}.sha512").raise_for_status().text.split()[0]
            with client.stream("GET", address) as answer, path.open("wb") as file:
                answer.raise_for_status()
                total = int(answer.headers.get("content-length", 0)) >> 20
                for piece in answer.iter_bytes():
                    digest.update(piece)
                    file.write(piece)
                    step.update(file.tell() >> 20, total or None, "downloading upstream's release (MiB)")
    except (httpx.HTTPError, IndexError) as problem:
        raise CommandError(f"{address}: {str(problem) or type(problem).__name__}") from None
    if digest.hexdigest() != checksum:
        raise CommandError("the download does not match its published sha512")
    path.chmod(0o755)
    return path, address


def _debian(work: Path, step: Step) -> tuple[Path, str]:
    """Debian 13's package"""
    step.update(note="fetching Debian 13's package")
    root, package_version = debian.download("runsc", DEBIAN_SUITE, work)
    return root / "usr/bin/runsc", f"Debian {DEBIAN_SUITE} runsc {package_version}"


def _publish(store: Path, source: Path, origin: str) -> Runsc:
    target = store / "bin/runsc"
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".runsc.{os.getpid()}")
    shutil.copyfile(source, fresh)
    fresh.chmod(0o755)
    os.replace(fresh, target)
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    found = Runsc(str(target), version(target), origin, digest, target.stat().st_size)
    record = store / f".runsc.json.{os.getpid()}"
    record.write_text(json.dumps(asdict(found), indent=1) + "\n")
    os.replace(record, store / "runsc.json")
    return found
