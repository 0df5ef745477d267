"""A root filesystem from Debian's packages, and the default one's other source, a Docker image that is Debian too."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from ephemeral_cli.errors import CommandError
from ephemeral_cli.progress import Step
from ephemeral_cli.rootfs.taming import DOCUMENTATION
from ephemeral_cli.setup import debian
from ephemeral_cli.setup.processes import run

LIBRARIES = {
    "bookworm": ("ca-certificates", "fonts-dejavu-core", "libglib2.0-0", "libgomp1", "tzdata"),
    "trixie": ("ca-certificates", "fonts-dejavu-core", "libglib2.0-0t64", "libgomp1", "tzdata"),
}
"""By suite, what manylinux wheels load from the system (OpenMP, OpenCV's GLib) and what programs expect (fonts, time zones)."""
SUITE = "bookworm"
"""Of the default one: Python 3.11. trixie has 3.13."""
IMAGE = "python:3.11-slim-bookworm"
PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
STAGES = 9


def check(suite: str, packages: tuple[str, ...]) -> None:
    """Raises CommandError for what cannot be meant."""
    if suite not in LIBRARIES:
        raise CommandError(f"there is no suite {suite!r} here", f"--suite {' or --suite '.join(LIBRARIES)}", exit_code=2)
    for package in packages:
        if not PACKAGE.fullmatch(package):
            raise CommandError(f"{package!r} is not the name of a Debian package", "apt-cache search lists them; write --package once for each", exit_code=2)


def from_debian(root: Path, suite: str, packages: tuple[str, ...], step: Step) -> str:
    """Fill the empty directory ``root``; where from, in words."""
    if shutil.which("mmdebstrap") is None:
        step.update(note="installing mmdebstrap")
        debian.install(["mmdebstrap"])
    stages = 0

    def stage(line: str) -> None:
        nonlocal stages
        if line.startswith("I: "):
            stages += 1
            step.update(min(stages, STAGES), STAGES, line[3:].rstrip("."))

    excluded = [f"--dpkgopt=path-exclude=/{path}/*" for path in DOCUMENTATION]
    wanted = ",".join(dict.fromkeys(("python3", *LIBRARIES[suite], *packages)))
    command = ["mmdebstrap", "--variant=apt", f"--include={wanted}", "--aptopt=Acquire::Retries \"2\"", *excluded]
    root.chmod(0o755)
    try:
        run([*command, suite, str(root), debian.source_line(suite)], stage, DEBIAN_FRONTEND="noninteractive")
    except CommandError as problem:
        unknown = re.search(r"Unable to locate package (\S+)", problem.message)
        if unknown:
            raise CommandError(f"Debian's {suite} has no package {unknown[1]}", f"`apt-cache search {unknown[1]}` lists names that are near", exit_code=2) from None
        raise CommandError(f"Debian's {suite} cannot be unpacked: {problem.message}", "check the mirror in /etc/apt with `apt-get update`, then type it again") from None
    return f"Debian {suite} from {debian.mirror()}"


def from_python_image(root: Path, step: Step) -> str:
    """Fill ``root`` from Python's own image, with the same libraries; empty when no engine answers or it cannot get the image."""
    if shutil.which("docker") is None:
        return ""
    name = f"ephemeral-setup-{os.getpid()}"
    script = f"apt-get update -q && apt-get install -yq --no-install-recommends {' '.join(LIBRARIES[SUITE])}"
    try:
        run(["timeout", "5", "docker", "version", "--format", "{{.Server.Version}}"])
        step.update(note=f"Docker image {IMAGE}")
        run(["timeout", "300", "docker", "run", "--name", name, "--env", "DEBIAN_FRONTEND=noninteractive", IMAGE, "sh", "-c", script])
    except CommandError:
        forget_container(name)
        return ""
    export(name, root)
    return f"Docker image {IMAGE}"


def export(container: str, root: Path) -> None:
    """Move the files of ``container`` into the empty directory ``root``; the container is gone afterwards."""
    try:
        # Without pipefail a failing export shows as an archive that tar cannot read to its end.
        run(["sh", "-c", 'docker export "$1" | tar --extract --numeric-owner --directory "$2"', "sh", container, str(root)])
    finally:
        forget_container(container)


def forget_container(name: str) -> None:
    try:
        run(["timeout", "60", "docker", "rm", "--force", "--volumes", name])
    except CommandError:
        pass  # no engine, or it never came to be
