"""Byte-compilation of wheels, inside gVisor with the sandboxes' own Python: the sources are not trusted.

The sandbox sees the wheels read-only and one empty output folder; what it wrote is moved to its place by the host.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from ephemeral_sandboxd.errors import Unavailable
from ephemeral_sandboxd.runtimes import spec
from ephemeral_sandboxd.runtimes.gvisor import GVisor
from ephemeral_sandboxd.runtimes.protocol import Size

TIMEOUT_SECONDS = 900
SIZE = Size(memory_bytes=4 << 30, cpus=float(os.cpu_count() or 1), pids=512, disk_bytes=64 << 20)
# Unchecked: the source beside a .pyc in the store never changes, so importing need not even look at it.
PROGRAM = """
import importlib.util, json, multiprocessing, os, py_compile, sys

def compile_one(job):
    source, target = job
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        py_compile.compile(source, cfile=target, dfile=source, doraise=True, quiet=2,
                           invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    except Exception:
        pass  # a file of another Python's grammar: it is imported from source, or not at all

jobs = []
for number, folder in enumerate(json.load(sys.stdin)):
    for directory, _, files in os.walk("/in/" + folder):
        for name in files:
            if name.endswith(".py"):
                source = os.path.join(directory, name)
                relative = os.path.relpath(directory, "/in/" + folder)
                cached = os.path.basename(importlib.util.cache_from_source(name))
                jobs.append((source, os.path.join("/out", str(number), relative, "__pycache__", cached)))
with multiprocessing.Pool() as pool:
    for _ in pool.imap_unordered(compile_one, jobs, chunksize=32):
        pass
"""


class Compiler:
    """Callable as environments.Compiler: pairs of (a wheel's files, the copy that gets ``__pycache__`` folders)."""

    def __init__(self, runtime: GVisor, folder: Path, root: Path | None = None):
        """``root``: the root filesystem whose Python compiles, else the runtime's own."""
        self._runtime = runtime
        self._folder = folder
        self._root = root

    async def __call__(self, pairs: Sequence[tuple[Path, Path]]) -> None:
        """Compile every .py file of every source. What does not compile is left out. Raises errors.Unavailable."""
        if not pairs:
            return
        name = f"c{secrets.token_hex(5)}"
        bundle = self._folder / name
        out = bundle / "out"
        out.mkdir(parents=True)
        user = spec.NOBODY
        try:
            os.chown(out, spec.NOBODY, spec.NOBODY)
        except OSError:
            user = 0  # in a user namespace there is one user, who is root in it and nobody outside
        parent = Path(os.path.commonpath([source.parent for source, _ in pairs]))
        try:
            (bundle / "config.json").write_text(json.dumps(self._spec(bundle, parent, out, name, user)))
            await self._run(bundle, name, [str(source.relative_to(parent)) for source, _ in pairs])
            for number, (_, target) in enumerate(pairs):
                await asyncio.to_thread(_move, out / str(number), target)
        finally:
            await asyncio.to_thread(shutil.rmtree, bundle, True)

    def _spec(self, bundle: Path, parent: Path, out: Path, name: str, user: int) -> dict[str, object]:
        config = self._runtime.spec(bundle, name, SIZE, self._root)
        config["process"]["args"] = ["/usr/bin/python3", "-I", "-c", PROGRAM]
        config["process"]["user"] = {"uid": user, "gid": user}
        config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] != spec.SLOTS]
        config["mounts"] += [
            {"destination": "/in", "type": "bind", "source": str(parent), "options": ["rbind", "ro", "nosuid", "nodev"]},
            {"destination": "/out", "type": "bind", "source": str(out), "options": ["rbind", "rw", "nosuid", "nodev", "noexec"]},
        ]
        return config

    async def _run(self, bundle: Path, name: str, folders: list[str]) -> None:
        process = await asyncio.create_subprocess_exec(
            *self._runtime.command("run", f"--bundle={bundle}", name),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                said, _ = await process.communicate(json.dumps(folders).encode())
        except BaseException:
            process.kill()
            await process.wait()
            await self._runtime.remove(name)
            raise
        if process.returncode:
            await self._runtime.remove(name)
            raise Unavailable("byte-compilation failed", f"{len(folders)} wheels: {said.decode(errors='replace')[-300:]}", "ephemeral doctor")


def _move(compiled: Path, target: Path) -> None:
    """Move the regular files below ``compiled`` to the same places below ``target``."""
    for directory, _, files in os.walk(compiled):
        for file in files:
            source = Path(directory) / file
            if source.is_symlink() or not source.is_file():
                continue
            place = target / source.relative_to(compiled)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.chown(source, 0, 0)
            source.chmod(0o644)
            source.replace(place)
