"""A root filesystem from an image that somebody else built. Nothing of it is run here: it is only unpacked.

The Docker engine on this machine hands over the files of a container that it creates and never starts. Archives are unpacked by programs
that know how not to be led out of the directory: GNU tar for a plain root filesystem, skopeo and umoci for images with layers.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ephemeral_cli.errors import CommandError
from ephemeral_cli.progress import Step
from ephemeral_cli.rootfs.bootstrap import export, forget_container
from ephemeral_cli.rootfs.probe import USUAL
from ephemeral_cli.setup import debian
from ephemeral_cli.setup.processes import run

REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
COMPRESSED = {b"\x28\xb5\x2f\xfd": ("zstd", "zstd"), b"\xfd7zXZ": ("xz", "xz-utils"), b"\x1f\x8b": ("gzip", "gzip"), b"BZh": ("bzip2", "bzip2")}
"""How a compressed file begins -> the program that GNU tar calls for it, and the Debian package that has it."""
MOST_FOLDERS = 20


@dataclass(frozen=True)
class Unpacked:
    """``origin`` is where it came from, in words; ``search`` the PATH that the image wants."""

    origin: str
    search: tuple[str, ...]


def from_engine(root: Path, reference: str, step: Step) -> Unpacked:
    """Fill the empty directory ``root`` with the files of the image ``reference`` that the engine on this machine has."""
    if not REFERENCE.fullmatch(reference):
        raise CommandError(f"{reference!r} is not the name of an image", "`docker image ls` lists them, for example python:3.12-slim", exit_code=2)
    if shutil.which("docker") is None:
        raise CommandError("there is no docker here", "install Docker, or save the image where it is (`docker save`) and give the file with --archive")
    try:
        run(["timeout", "10", "docker", "version", "--format", "{{.Server.Version}}"])
    except CommandError as problem:
        raise CommandError(f"the Docker engine does not answer: {problem.message}", "systemctl start docker, or save the image where it is and give the file with --archive") from None
    step.update(note=f"Docker image {reference}")
    try:
        described: dict[str, Any] = json.loads(run(["timeout", "60", "docker", "image", "inspect", "--format", "{{json .}}", reference]))
    except (CommandError, ValueError):
        raise CommandError(f"the Docker engine here has no image {reference}", f"docker pull {reference}") from None
    _check_platform(described.get("Os"), described.get("Architecture"))
    identity = str(described.get("Id", "")).removeprefix("sha256:")[:12]
    name = f"ephemeral-rootfs-{os.getpid()}"
    try:
        # Never started, so what it would run does not matter; images without a command want one named.
        run(["timeout", "300", "docker", "create", "--pull=never", "--network=none", "--name", name, reference, "/nothing"])
    except CommandError:
        forget_container(name)
        raise
    export(name, root)
    return Unpacked(f"Docker image {reference} ({identity})", _search(described.get("Config")))


def from_archive(root: Path, file: Path, work: Path, step: Step) -> Unpacked:
    """Fill the empty directory ``root`` from ``file``: an OCI layout (a directory) or archive, what `docker save` wrote, or a tar of
    a root filesystem, compressed or not. ``work`` is an empty directory to work in.
    """
    kind = _kind(file, step)
    origin = f"{ {'plain': 'root filesystem', 'docker-archive': 'Docker archive'}.get(kind, 'OCI image') } {file.name}"
    if kind == "plain":
        step.update(note=f"unpacking {file.name}")
        _untar(file, root)
        return Unpacked(origin, USUAL)
    _install({"skopeo": "skopeo", "umoci": "umoci"}, step)
    step.update(note=f"reading {file.name}")
    source = work / "source"
    source.symlink_to(file.absolute())  # skopeo takes a colon in a path for the beginning of a tag
    layout = f"{work / 'layout'}:image"
    skopeo = ["skopeo", "--insecure-policy", f"--tmpdir={work}"]
    try:
        # umoci reads gzip alone: layers that are plain or zstd are compressed anew.
        run([*skopeo, "copy", "--quiet", "--dest-compress-format=gzip", f"{kind}:{source}", f"oci:{layout}"])
        described: dict[str, Any] = json.loads(run([*skopeo, "inspect", "--config", f"oci:{layout}"]))
    except (CommandError, ValueError) as problem:
        raise CommandError(f"{file} cannot be read as an image: {_words(problem)}", "it must hold one image, as `docker save NAME > FILE` writes it") from None
    _check_platform(described.get("os"), described.get("architecture"))
    step.update(note="unpacking its layers")
    root.rmdir()
    try:
        run(["umoci", "raw", "unpack", "--image", layout, str(root)])
    except CommandError as problem:
        raise CommandError(f"the layers of {file} cannot be unpacked: {_words(problem)}", "layers must be tar, plain or gzip, and stay within their root") from None
    return Unpacked(origin, _search(described.get("config")))


def _kind(file: Path, step: Step) -> str:
    """``oci``, ``oci-archive``, ``docker-archive`` or ``plain``."""
    if file.is_dir():
        if (file / "oci-layout").exists():
            return "oci"
        raise CommandError(f"{file} is a directory, but no OCI image layout (it has no oci-layout)", "tar it first if it is a root filesystem: tar -C DIRECTORY -cf root.tar .", exit_code=2)
    if not file.is_file():
        raise CommandError(f"there is no file {file}", "give an image archive, for example what `docker save NAME > FILE` wrote", exit_code=2)
    with file.open("rb") as opened:
        start = opened.read(8)
    for magic, (program, package) in COMPRESSED.items():
        if start.startswith(magic):
            _install({program: package}, step)
    step.update(note=f"looking into {file.name}")
    try:
        listed = run(["tar", "--list", "--force-local", "--file", str(file)], QUOTING_STYLE="escape")
    except CommandError as problem:
        raise CommandError(f"{file} cannot be read: {_words(problem)}", "it must be a tar archive, plain or compressed with gzip, bzip2, xz or zstd") from None
    names = {line.removeprefix("./").strip("/") for line in listed.splitlines()}
    top = {name.split("/")[0] for name in names}
    if "manifest.json" in names and not top & {"usr", "bin"}:
        return "docker-archive"  # newer engines put an OCI layout beside it: either way in is good
    if "oci-layout" in names and not top & {"usr", "bin"}:
        return "oci-archive"
    if "usr" in top:
        return "plain"
    raise CommandError(f"{file} is neither an image archive nor a root filesystem (it has no manifest.json, oci-layout or usr/)", "docker save NAME > FILE writes an image archive")


def _untar(file: Path, root: Path) -> None:
    """GNU tar cuts leading slashes, refuses names with `..`, and makes links that lead out only after all else is unpacked."""
    try:
        run(["tar", "--extract", "--no-same-owner", "--same-permissions", "--delay-directory-restore", "--force-local", "--file", str(file), "--directory", str(root)])
    except CommandError as problem:
        raise CommandError(f"{file} cannot be unpacked: {_words(problem)}", "its names must stay within it: make it anew with tar -C DIRECTORY -cf FILE .") from None


def _install(programs: dict[str, str], step: Step) -> None:
    """Have ``programs`` (name -> Debian package); installed from the machine's own mirror where missing."""
    absent = [package for program, package in programs.items() if shutil.which(program) is None]
    if absent:
        step.update(note=f"installing {' '.join(absent)}")
        debian.install(absent)


def _check_platform(system: object, architecture: object) -> None:
    here = ARCHITECTURES.get(platform.machine(), platform.machine())
    if (system or "linux", architecture or here) != ("linux", here):
        raise CommandError(f"the image is for {system}/{architecture}, and this machine is linux/{here}", f"get or build it with --platform linux/{here}")


def _search(config: object) -> tuple[str, ...]:
    """The PATH of an image's configuration."""
    variables = config.get("Env") if isinstance(config, dict) else None
    for variable in variables if isinstance(variables, list) else []:
        if isinstance(variable, str) and variable.startswith("PATH="):
            folders = [folder for folder in variable.removeprefix("PATH=").split(":") if re.fullmatch(r"/[\x21-\x7e]*", folder)]
            return tuple(folders[:MOST_FOLDERS]) or USUAL
    return USUAL


def _words(problem: Exception) -> str:
    """A program's last words, without the command line that we typed."""
    text = problem.message if isinstance(problem, CommandError) else str(problem)
    return re.sub(r"^`.*?` failed \(-?\d+\): ", "", text, flags=re.DOTALL)
