"""The sandboxes' root filesystem: Python, a few libraries that wheels expect, and nothing else.

From a Docker image where an engine answers, else from Debian's packages. It lands at ``STORE/rootfs/<id>/`` in one
rename, ``<id>`` being a hash of its package list; then ``STORE/rootfs.json`` names it. An older one is left standing:
sandboxes may be running on it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from ephemeral_cli.errors import CommandError
from ephemeral_cli.progress import Reporter, Step
from ephemeral_cli.setup import debian
from ephemeral_cli.setup.processes import run

SUITE = "bookworm"
IMAGE = "python:3.11-slim-bookworm"
LIBRARIES = ("ca-certificates", "fonts-dejavu-core", "libglib2.0-0", "libgomp1", "tzdata")
"""What manylinux wheels load from the system (OpenMP, OpenCV's GLib) and what programs expect (fonts, time zones)."""
MOUNT_POINTS = ("dev/shm", "ephemeral", "proc", "scratch", "slots", "sys", "tmp")
NOT_NEEDED = (
    "boot", "home", "media", "opt", "srv", "usr/share/doc", "usr/share/info", "usr/share/man", "usr/share/lintian", "usr/share/locale",
    "var/cache", "var/lib/apt/lists", "var/log", "root",
)
RECIPE = 1
"""Raise it when what is written here changes what a root filesystem holds: an older one is then made anew."""
MMDEBSTRAP_STAGES = 9


@dataclass(frozen=True)
class Rootfs:
    """A published root filesystem. ``recipe`` tells whether it is what this version of setup would make."""

    id: str
    python: str
    glibc: str
    origin: str
    recipe: int
    packages: int


def recorded(store: Path) -> Rootfs | None:
    """The root filesystem that ``store`` names, if it is there and what this version of setup would make."""
    try:
        rootfs = Rootfs(**json.loads((store / "rootfs.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return rootfs if rootfs.recipe == RECIPE and (store / "rootfs" / rootfs.id / "usr").is_dir() else None


def ensure(store: Path, report: Reporter) -> Rootfs:
    """The root filesystem of ``store``; made first when need be. Raises CommandError with what to type."""
    have = recorded(store)
    if have:
        return have
    if os.geteuid() != 0:
        raise CommandError("the sandboxes' root filesystem has files of root's: making it needs root", "sudo .venv/bin/ephemeral setup")
    parent = store / "rootfs"
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(".making-*"):
        shutil.rmtree(left, ignore_errors=True)  # a setup that was killed
    root = Path(tempfile.mkdtemp(prefix=".making-", dir=parent))
    try:
        with report.step("root filesystem") as step:
            origin = _from_docker(root, step) or _from_debian(root, step)
            step.update(MMDEBSTRAP_STAGES, MMDEBSTRAP_STAGES, "slimming")
            return _publish(root, store, origin)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _from_docker(root: Path, step: Step) -> str:
    """Fill ``root`` from the image; empty when no engine answers or it cannot get the image."""
    if shutil.which("docker") is None:
        return ""
    name = f"ephemeral-setup-{os.getpid()}"
    script = f"apt-get update -q && apt-get install -yq --no-install-recommends {' '.join(LIBRARIES)}"
    try:
        run(["timeout", "5", "docker", "version", "--format", "{{.Server.Version}}"])
        step.update(note=f"Docker image {IMAGE}")
        run(["timeout", "300", "docker", "run", "--name", name, "--env", "DEBIAN_FRONTEND=noninteractive", IMAGE, "sh", "-c", script])
    except CommandError:
        _forget_container(name)
        return ""
    try:
        run(["sh", "-c", 'docker export "$1" | tar --extract --numeric-owner --directory "$2"', "sh", name, str(root)])
    finally:
        _forget_container(name)
    return f"Docker image {IMAGE}"


def _forget_container(name: str) -> None:
    try:
        run(["timeout", "60", "docker", "rm", "--force", "--volumes", name])
    except CommandError:
        pass  # no engine, or it never came to be


def _from_debian(root: Path, step: Step) -> str:
    if shutil.which("mmdebstrap") is None:
        step.update(note="installing mmdebstrap")
        debian.install(["mmdebstrap"])
    stages = 0

    def stage(line: str) -> None:
        nonlocal stages
        if line.startswith("I: "):
            stages += 1
            step.update(min(stages, MMDEBSTRAP_STAGES), MMDEBSTRAP_STAGES, line[3:].rstrip("."))

    excluded = [f"--dpkgopt=path-exclude=/{path}/*" for path in NOT_NEEDED if path.startswith("usr/share/")]
    command = ["mmdebstrap", "--variant=apt", f"--include={','.join(('python3', *LIBRARIES))}", "--aptopt=Acquire::Retries \"2\"", *excluded]
    root.chmod(0o755)
    try:
        run([*command, SUITE, str(root), debian.source_line(SUITE)], stage, DEBIAN_FRONTEND="noninteractive")
    except CommandError as problem:
        raise CommandError(f"Debian's {SUITE} cannot be unpacked: {problem.message}", "check the mirror in /etc/apt with `apt-get update`, then `ephemeral setup`") from None
    return f"Debian {SUITE} from {debian.mirror()}"


def _publish(root: Path, store: Path, origin: str) -> Rootfs:
    python = root / "usr/bin/python3"
    if not python.exists():
        python.symlink_to("/usr/local/bin/python3")  # where Docker's image has it; the guest is started by the other name
    listed = run(["chroot", str(root), "dpkg-query", "-W", "-f", "${Package} ${Version} ${Architecture}\\n"])
    facts = json.loads(run(["chroot", str(root), "/usr/bin/python3", "-I", "-c",
                            "import json, os, platform; print(json.dumps([platform.python_version(), os.confstr('CS_GNU_LIBC_VERSION')]))"]))
    _slim(root)
    identity = hashlib.sha256(f"{RECIPE}\n{facts}\n{listed}".encode()).hexdigest()[:16]
    rootfs = Rootfs(identity, facts[0], facts[1].removeprefix("glibc "), origin, RECIPE, len(listed.splitlines()))
    root.chmod(0o755)
    target = store / "rootfs" / identity
    if not target.exists():
        os.replace(root, target)
    record = store / f".rootfs.json.{os.getpid()}"
    record.write_text(json.dumps(asdict(rootfs), indent=1) + "\n")
    os.replace(record, store / "rootfs.json")
    return rootfs


def _slim(root: Path) -> None:
    """Remove what no sandbox reads, and every privilege a file could give."""
    for path in NOT_NEEDED:
        shutil.rmtree(root / path, ignore_errors=True)
    for name in ("dev", "run", "tmp", "proc", "sys"):
        shutil.rmtree(root / name, ignore_errors=True)
    for name in (*MOUNT_POINTS, "home", "root", "run", "var/log", "var/cache"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
                os.chmod(path, stat.S_IMODE(mode) & 0o777)
