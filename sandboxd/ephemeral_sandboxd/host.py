"""What of this host a daemon is built from: where setup put things, and which runtime can be had."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ephemeral import settings, wire
from ephemeral_sandboxd import roots
from ephemeral_sandboxd.environments import Environments
from ephemeral_sandboxd.errors import Unavailable
from ephemeral_sandboxd.roots import Root
from ephemeral_sandboxd.runtimes import Runtime, cgroups
from ephemeral_sandboxd.runtimes.compiling import Compiler
from ephemeral_sandboxd.runtimes.gvisor import GVisor


@dataclass(frozen=True)
class Parts:
    """What `ephemeral setup` made: the runsc to drive, and the sandboxes' root filesystem with its Python."""

    runsc: Path
    rootfs: Path
    python: str
    """Two numbers, for example 3.11."""


def parts(store: Path) -> Parts:
    """Raises errors.Unavailable, with what to type, when setup was not run."""
    runsc = settings.get("runsc") or store / "bin" / "runsc"
    if not Path(runsc).exists():
        found = shutil.which("runsc")
        if not found:
            raise Unavailable("no gVisor", f"there is no runsc at {runsc} nor on PATH", "ephemeral setup")
        runsc = Path(found)
    description = store / "rootfs.json"
    try:
        content = json.loads(description.read_text())
        return Parts(Path(runsc), store / "rootfs" / content["id"], ".".join(content["python"].split(".")[:2]))
    except (OSError, ValueError, KeyError) as problem:
        raise Unavailable("no root filesystem", f"{description} cannot be read: {problem}", "ephemeral setup") from problem


def runtime(kind: str, store: Path, state: Path) -> Runtime:
    """Raises errors.Unavailable when setup was not run."""
    found = parts(store)
    group = cgroups.group_of(state)
    if kind == "docker":
        from ephemeral_sandboxd.runtimes.docker import DockerRuntime  # the engine's SDK takes 100 ms to import

        return DockerRuntime(found.rootfs, state / "run", group, runtime=settings.get("oci_runtime"),
                             allow_weak_isolation=settings.get("allow_weak_isolation"))
    return GVisor(found.runsc, found.rootfs, state / "run", group, blanks=settings.get("blanks"))


Found = tuple[Root, Environments]


def finder(store: Path, state: Path, runtime: Runtime) -> Callable[[str], Found]:
    """Opens a root filesystem by its name, with the environments for its Python; byte-compiled where the runtime can do it.

    What it returns raises KeyError for a name that is none. A root that was opened stays: nobody can remove it while this process lives.
    """
    held: list[int] = []

    def find(name: str) -> Found:
        root = roots.roots(store)[name]
        held.append(roots.hold(root))
        compiler = Compiler(runtime, store / "compiling", root.path) if isinstance(runtime, GVisor) else None
        mounts = state / "run" / "environments" / root.name
        return root, Environments(store, mounts, python=root.python, glibc=root.glibc, compiler=compiler)

    return find


def root_filesystems(store: Path) -> list[wire.RootFilesystem]:
    """All there are, the default first."""
    found = sorted(roots.roots(store).values(), key=lambda root: (root.name != "default", root.name))
    return [wire.RootFilesystem(name=root.name, id=root.id, python=root.python, glibc=".".join(map(str, root.glibc)), tools=list(root.tools),
                                node=root.node, size_bytes=root.size_bytes, origin=root.origin, created_at=root.created_at) for root in found]


def take(state: Path) -> int:
    """Lock the state directory for this process's life; release() gives it back. Raises errors.Unavailable naming the daemon that has it."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(state / "sandboxd.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(descriptor, 100).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise Unavailable("already running", f"another sandboxd (pid {holder}) works on {state}",
                          "use it, stop it, or set EPHEMERAL_STATE to another directory") from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return descriptor


def release(lock: int) -> None:
    """Give the state directory back."""
    os.close(lock)
