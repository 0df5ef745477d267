"""The same programs by what people use today, and by us, in the same run.

Images cannot be assumed to be at hand: the peers run on the sandboxes' own root filesystem, with pip and uv put in. Only wheels are
installed, so that no package's set-up code runs in a container that shares the host's kernel.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from docker.errors import DockerException
from docker.types import Mount

from ephemeral_sandboxd.bench import llm_sandbox
from ephemeral_sandboxd.bench.engine import Engine, engine
from ephemeral_sandboxd.bench.figures import Figures
from ephemeral_sandboxd.bench.place import NotHere, Place, reasons
from ephemeral_sandboxd.bench.sandboxes import one
from ephemeral_sandboxd.commands import run
from ephemeral_sandboxd.environments.index import Index, local_path
from ephemeral_sandboxd.environments.target import Target

T = TypeVar("T")

PROGRAMS = {"bare": ("print(1+1)", "2"), "pandas": ("import pandas; print(int(pandas.Series([1, 2, 3]).sum()))", "6")}
"""Kind -> a program and what it prints."""
IMAGE = "ephemeral-bench"
LABEL = "ephemeral.bench"
INSTALL_SECONDS = 300
PIP = "python3 -m pip install --quiet --no-input --disable-pip-version-check --break-system-packages --root-user-action=ignore --only-binary :all: pandas"
UV = "uv pip install --quiet --no-config --offline --system --break-system-packages --link-mode=copy --only-binary :all: pandas"
THEIRS = ("docker_run_pip_ms", "docker_run_uv_cache_ms", "docker_exec_ms", "docker_exec_runsc_ms", "llm_sandbox_pooled_ms")


async def ours(place: Place, figures: Figures) -> None:
    """peers.ephemeral_restore_ms, peers.ephemeral_live_ms."""
    for kind, (code, prints) in PROGRAMS.items():
        name = f"peers.ephemeral_restore_ms.{kind}"
        if figures.wanted(name):
            with reasons(figures, name):
                image, samples = await place.image(kind), []
                for _ in range(place.times(10, 2)):
                    await place.settled()
                    began = time.perf_counter()
                    box = await place.start(image)
                    try:
                        await place.answer(box, code, prints)
                        samples.append((time.perf_counter() - began) * 1000)
                    finally:
                        await box.delete()
                figures.add(name, samples)
    if figures.wanted("peers.ephemeral_live_ms"):
        code, prints = PROGRAMS["pandas"]
        samples = []
        for _ in range(place.times(10, 2)):  # a sandbox each: the second run of the same code would be another program
            async with one(place, "pandas") as box:
                await place.settled()
                box.freeze()
                began = time.perf_counter()
                await place.answer(box, code, prints)
                samples.append((time.perf_counter() - began) * 1000)
        figures.add("peers.ephemeral_live_ms.pandas", samples)


async def theirs(place: Place, figures: Figures) -> None:
    """The other peers, as far as this machine has them."""
    if not any(figures.wanted(f"peers.{name}") for name in THEIRS):
        return
    async with engine(place.parts.runsc) as found:
        place.engine = f"{found.version}{' (private)' if found.private else ''}"
        peers = _Peers(place, figures, found)
        try:
            await peers.measure()
        finally:
            await finished(peers.clear)


class _Peers:
    def __init__(self, place: Place, figures: Figures, found: Engine):
        self._place = place
        self._figures = figures
        self._docker = found.client
        self._runtimes = found.runtimes
        root = place.stock.root
        self._index = Index.configured(Target(root.python, glibc=root.glibc))
        self._cache = place.state / "peers-cache"
        self._label = {LABEL: place.state.name}
        self._image = f"{IMAGE}:{place.state.name}".lower()
        self._warm = f"{self._image}-pandas"

    async def measure(self) -> None:
        """Without the image, or an index to install from, there is nothing to measure: then this raises NotHere or OSError."""
        self._place.progress("an image with pip and uv", 0, 1)
        await self._make_image()
        with reasons(self._figures, "peers.docker_run_pip_ms"):
            await self._take("docker_run_pip_ms", self._runs(PIP, self._pip_environment(), "host"), 3)
        self._place.progress("uv's cache is warmed", 0, 1)
        await finished(self._warm_up)
        for runtime in ("runc", "runsc"):
            with reasons(self._figures, f"peers.docker_run_uv_cache_ms.{runtime}"):
                self._know(runtime)
                await self._take(f"docker_run_uv_cache_ms.{runtime}", self._runs(UV, self._uv_environment(), "none", runtime=runtime), 5)
        for runtime, name in (("runc", "docker_exec_ms"), ("runsc", "docker_exec_runsc_ms")):
            with reasons(self._figures, f"peers.{name}"):
                self._know(runtime)
                await self._execs(name, runtime)
        with reasons(self._figures, "peers.llm_sandbox_pooled_ms"):
            rounds = self._place.times(10, 3)
            measured = await finished(lambda: llm_sandbox.pooled(self._docker, self._warm, PROGRAMS, rounds))
            for kind, samples in measured.items():
                self._figures.add(f"peers.llm_sandbox_pooled_ms.{kind}", samples)

    def clear(self) -> None:
        """Leave nothing in an engine that is not ours."""
        try:
            for container in self._docker.containers.list(all=True, filters={"label": f"{LABEL}={self._place.state.name}"}):
                container.remove(force=True, v=True)
            for image in (self._warm, self._image):
                if self._docker.images.list(name=image):
                    self._docker.images.remove(image, force=True)
        except (DockerException, OSError):
            return  # it has ended; a private one takes all it had with it

    # ------------------------------------------------------------------------------------------------ measuring

    async def _take(self, name: str, once: Callable[[], float], usual: int) -> None:
        """``once`` runs the program in a new container and says how many milliseconds that took."""
        if not self._figures.wanted(f"peers.{name}"):
            return
        samples, rounds = [], self._place.times(usual, 1)
        for number in range(rounds):
            self._place.progress(name, number, rounds)
            samples.append(await finished(once))
        self._figures.add(f"peers.{name}", samples)

    async def _execs(self, name: str, runtime: str) -> None:
        """In a container that runs already; python starts anew each time."""
        if not self._figures.wanted(f"peers.{name}"):
            return
        container = await finished(lambda: self._start(self._warm, ["sleep", "infinity"], network="none", runtime=runtime))
        try:
            for kind, (code, prints) in PROGRAMS.items():
                rounds = self._place.times(10, 2)
                self._place.progress(f"{name}, {kind}", 0, 1)
                samples = [await finished(lambda code=code, prints=prints: self._exec(container, code, prints))  # type: ignore[misc]
                           for _ in range(rounds + 1)]
                self._figures.add(f"peers.{name}.{kind}", samples[1:])  # the first reads pandas from the disk
        finally:
            await finished(lambda: container.remove(force=True, v=True))

    def _runs(self, install: str, environment: dict[str, str], network: str, runtime: str = "runc") -> Callable[[], float]:
        code, prints = PROGRAMS["pandas"]
        command = ["sh", "-c", f"{install} && python3 -c {shlex.quote(code)}"]

        def once() -> float:
            began = time.perf_counter()
            container = self._start(self._image, command, network=network, runtime=runtime, environment=environment)
            try:
                status = container.wait(timeout=INSTALL_SECONDS)["StatusCode"]
                said = container.logs(stdout=True, stderr=False).decode(errors="replace").strip()
                took = (time.perf_counter() - began) * 1000
                if status or said != prints:
                    raise OSError(f"status {status}: {container.logs().decode(errors='replace').strip()[-300:]}")
            finally:
                container.remove(force=True, v=True)
            return took

        return once

    def _exec(self, container: Any, code: str, prints: str) -> float:
        began = time.perf_counter()
        status, said = container.exec_run(["python3", "-c", code])
        took = (time.perf_counter() - began) * 1000
        if status or said.decode(errors="replace").strip() != prints:
            raise OSError(f"status {status}: {said.decode(errors='replace').strip()[-300:]}")
        return took

    def _start(self, image: str, command: list[str], *, network: str, runtime: str = "runc", environment: dict[str, str] | None = None) -> Any:
        container = self._docker.containers.create(
            image, command, network_mode=network, runtime=runtime, environment=environment or {}, mounts=self._mounts(), labels=self._label)
        try:
            container.start()
        except BaseException:
            container.remove(force=True, v=True)
            raise
        return container

    def _know(self, runtime: str) -> None:
        """Raises NotHere for a runtime that is not measured."""
        if runtime == "runsc" and self._place.quick:
            raise NotHere("left out by --quick")
        if runtime not in self._runtimes:
            raise NotHere(f"the engine knows no runtime {runtime} (but {', '.join(self._runtimes)})")

    # ------------------------------------------------------------------------------------------------ what they need

    async def _make_image(self) -> None:
        """The root filesystem with pip, uv and a `python`, given to the engine. Raises NotHere, OSError."""
        extra = self._place.state / "image"
        local = extra / "usr/local"
        (local / "bin").mkdir(parents=True)
        shutil.copy2(self._index.uv, local / "bin/uv")
        (local / "bin/python").symlink_to("/usr/bin/python3")
        python = extra / llm_sandbox.PYTHON.lstrip("/")
        python.parent.mkdir(parents=True)
        python.symlink_to("/usr/bin/python3")
        target = local / "lib" / f"python{self._place.parts.python}" / "dist-packages"
        status, _ = await run(self._index.uv, "pip", "install", *self._index.arguments, "--target", str(target), "pip",
                              env=self._index.environment(self._cache), timeout=INSTALL_SECONDS)
        if status:
            raise NotHere("pip could not be had from the package index")
        await finished(lambda: self._import(extra))

    def _import(self, extra: Path) -> None:
        # Files only: an engine's import refuses a directory that comes twice.
        added = extra.with_name("image.list")
        added.write_text("".join(f"./{path.relative_to(extra)}\n" for path in sorted(extra.rglob("*")) if path.is_symlink() or not path.is_dir()))
        command = ["tar", "--create", "--numeric-owner", "--directory", str(self._place.parts.rootfs), ".",
                   "--directory", str(extra), "--verbatim-files-from", f"--files-from={added}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as tar:
            repository, _, tag = self._image.partition(":")
            self._docker.api.import_image_from_stream(tar.stdout, repository=repository, tag=tag)
        if tar.returncode:
            raise OSError(f"tar of {self._place.parts.rootfs} ended with status {tar.returncode}")

    def _warm_up(self) -> None:
        """Fill uv's cache, and keep the container with pandas installed as the image of the warm ones."""
        container = self._start(self._image, ["sh", "-c", UV.replace("--offline ", "")], network="host", environment=self._uv_environment())
        try:
            if container.wait(timeout=INSTALL_SECONDS)["StatusCode"]:
                raise OSError(f"uv pip install pandas: {container.logs().decode(errors='replace').strip()[-300:]}")
            repository, _, tag = self._warm.partition(":")
            container.commit(repository, tag, changes='CMD ["sh"]')  # llm-sandbox starts what an image says, on a terminal
        finally:
            container.remove(force=True, v=True)

    def _pip_environment(self) -> dict[str, str]:
        """Where this machine's pip is told to look."""
        index = self._index
        found = {"PIP_INDEX_URL": index.url, "PIP_EXTRA_INDEX_URL": " ".join(index.extra_urls), "PIP_FIND_LINKS": " ".join(index.find_links),
                 "PIP_CERT": index.certificate, "PIP_NO_INDEX": "1" if index.offline else ""}
        return {name: value for name, value in found.items() if value} | self._passed_on()

    def _uv_environment(self) -> dict[str, str]:
        return {name: value for name, value in self._index.environment(self._cache).items() if name.startswith("UV_")} | self._passed_on()

    def _passed_on(self) -> dict[str, str]:
        """What uv and pip need of the host's own variables to reach the index."""
        known = self._index.environment(self._cache)
        return {name: value for name, value in known.items() if name.lower().endswith("_proxy") or name.startswith("SSL_CERT_")}

    def _mounts(self) -> list[Mount]:
        """uv's cache, and read-only what the index's configuration names on this machine."""
        passed = self._passed_on()
        named = [passed.get("SSL_CERT_FILE"), passed.get("SSL_CERT_DIR"), self._index.certificate, *map(local_path, self._index.find_links)]
        paths = {os.fspath(path) for path in named if path and Path(path).is_absolute() and Path(path).exists()}
        return [Mount(str(self._cache), str(self._cache), type="bind"), *(Mount(path, path, type="bind", read_only=True) for path in sorted(paths))]


async def finished(work: Callable[[], T]) -> T:
    """``work`` in a thread, to its end even when cancelled: it clears up after itself. What the engine says becomes an OSError."""
    task = asyncio.create_task(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
    except DockerException as problem:
        raise OSError(str(problem)[-300:]) from problem
