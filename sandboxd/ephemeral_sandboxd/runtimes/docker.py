"""The ``docker`` runtime: sandboxes by an engine on this machine, through its ``runsc`` runtime. It cannot snapshot.

Slots are mounts of this host that must appear in containers which another process made: with this runtime the daemon
stays in the host's mount namespace (no mounts.private_namespace()), and what a killed one left mounted is cleared by reap().
Control groups are read, frozen and resized directly, as the engine's own pause takes a hundred times longer and runsc knows no
``update``: `docker inspect` goes on to show the size that a sandbox was started with.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Literal

import docker
from docker.errors import APIError, DockerException, NotFound

from ephemeral_sandboxd.errors import Unavailable
from ephemeral_sandboxd.runtimes import spec
from ephemeral_sandboxd.runtimes.attach import Attached, open_channel
from ephemeral_sandboxd.runtimes.box import Box, Gone, clear, prepare_directory, whole
from ephemeral_sandboxd.runtimes.cgroups import Cgroup
from ephemeral_sandboxd.runtimes.frames import Channel
from ephemeral_sandboxd.runtimes.gvisor import BOOT_TIMEOUT_SECONDS
from ephemeral_sandboxd.runtimes.protocol import Size

log = logging.getLogger(__name__)

IMAGE = "ephemeral-rootfs"
PATH_LABEL = "ephemeral-rootfs.path"
GROUP_LABEL = "ephemeral.group"
NAME_LABEL = "ephemeral.sandbox"
ENGINE_TIMEOUT_SECONDS = 300
DEATH_SECONDS = 3.0
SHARES_KERNEL = ("runc", "crun", "youki", "io.containerd.runc.v2")
TROUBLE = (DockerException, OSError)
"""What the SDK raises; requests' own exceptions are OSErrors."""


class DockerRuntime:
    """Starts sandboxes by the engine that DOCKER_HOST names, from the root filesystem ``rootfs``; short-lived files go below ``run``.

    ``group`` is the label by which the reaper knows this state directory's containers. ``runtime`` is the name of an OCI
    runtime that the engine knows. Only with ``allow_weak_isolation`` may it be one that shares the host's kernel; the engine's
    default then stands in for a ``runtime`` that the engine does not know.
    """

    name: Literal["gvisor", "docker"] = "docker"
    can_snapshot = False

    def __init__(self, rootfs: Path, run: Path, group: str, runtime: str = "runsc", allow_weak_isolation: bool = False):
        self._rootfs = rootfs
        self._run = run
        self._group = group
        self._runtime = runtime
        self._allow_weak_isolation = allow_weak_isolation
        self._images: dict[str, str] = {}
        """Of root filesystems that the engine has: their ids, by name."""
        self._importing = threading.Lock()
        self._guest = run / "guest"
        self._starts = asyncio.Semaphore(os.cpu_count() or 1)
        self._engine: docker.DockerClient  # from check() on
        self._identity: list[str] = []
        self.isolation = "not checked yet"

    # --------------------------------------------------------------------------------------------- the engine

    async def check(self) -> None:
        if not self._rootfs.exists():
            raise Unavailable("no sandbox runtime", f"the sandboxes' root filesystem is not at {self._rootfs}", "ephemeral setup")
        try:
            await asyncio.to_thread(self._connect)
            image = await asyncio.to_thread(self._import_image, self._rootfs)
            await asyncio.to_thread(self._remove_old_images)
        except TROUBLE as problem:
            raise Unavailable("no Docker engine", f"{_host()}: {problem}", "systemctl start docker, or set EPHEMERAL_RUNTIME=gvisor") from problem
        self._identity.append(image)
        for directory in (self._guest, self._run / "sandboxes"):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._guest.chmod(0o755)
        spec.write_guest(self._guest)

    def _connect(self) -> None:
        if not _host().startswith("unix://"):
            raise Unavailable("Docker engine elsewhere", f"DOCKER_HOST is {_host()}, but sandboxes use mounts and control groups of this machine",
                              "set DOCKER_HOST to an engine's Unix socket here, or run sandboxd where that engine is")
        self._engine = docker.from_env(timeout=ENGINE_TIMEOUT_SECONDS)
        facts = self._engine.info()
        if self._runtime not in facts["Runtimes"]:
            if not self._allow_weak_isolation:
                known = ", ".join(facts["Runtimes"])
                if self._runtime == "runsc":
                    raise Unavailable("no gVisor in the Docker engine", f"{_host()} knows no runtime runsc (but {known})",
                                      "runsc install -- --network=none && systemctl restart docker, or set EPHEMERAL_RUNTIME=gvisor")
                raise Unavailable("no such OCI runtime", f"{_host()} knows no runtime {self._runtime} (but {known})",
                                  "add it to the engine's `runtimes` (/etc/docker/daemon.json), or set EPHEMERAL_OCI_RUNTIME to one that it knows")
            self._runtime = facts["DefaultRuntime"]
        if self._runtime in SHARES_KERNEL:
            if not self._allow_weak_isolation:
                raise Unavailable("weak isolation", f"the runtime {self._runtime} shares the host's kernel with what the model writes",
                                  "use runsc, or allow it in so many words: EPHEMERAL_ALLOW_WEAK_ISOLATION=1")
            self.isolation = f"{self._runtime}: shares the host's kernel"
        else:
            self.isolation = f"{_isolation_of(self._runtime)} ({self._runtime}, Docker {facts['ServerVersion']})"
        self._identity = [facts["ServerVersion"], self._runtime, json.dumps(facts["Runtimes"].get(self._runtime), sort_keys=True)]

    def _import_image(self, root: Path) -> str:
        """Give the engine the root filesystem, unless it has it. Returns the image's id. Blocking."""
        with self._importing:
            if root.name not in self._images:
                self._images[root.name] = self._imported(root, f"{IMAGE}:{root.name}")
            return self._images[root.name]

    def _imported(self, root: Path, image: str) -> str:
        with contextlib.suppress(NotFound):
            return str(self._engine.images.get(image).id)
        spec.prepare_rootfs(root)
        log.info("giving the root filesystem %s to the Docker engine", image)
        with subprocess.Popen(["tar", "--create", "--numeric-owner", "--directory", str(root), "."], stdout=subprocess.PIPE) as tar:
            self._engine.api.import_image_from_stream(tar.stdout, repository=IMAGE, tag=root.name, changes=[f'LABEL {IMAGE}="{root.name}" {PATH_LABEL}="{root}"'])
        if tar.returncode:
            self._engine.images.remove(image)
            raise OSError(f"tar of {root} ended with status {tar.returncode}")
        return str(self._engine.images.get(image).id)

    def _remove_old_images(self) -> None:
        """Take back from the engine what it was given of root filesystems that are gone since. Blocking."""
        for image in self._engine.images.list(filters={"label": PATH_LABEL}):
            if not Path(image.labels[PATH_LABEL]).exists():
                log.info("taking the root filesystem %s back from the Docker engine", image.labels.get(IMAGE))
                with contextlib.suppress(APIError):  # one that a container still uses stays until the next time
                    self._engine.images.remove(str(image.id))

    def limit(self, memory_bytes: int, cpus: float) -> None:
        """An engine puts each container into a control group of its own choice: the pool's budget has no backstop here."""

    async def close(self) -> None:
        """The engine is not ours: nothing is left to take away."""

    def fingerprint(self, root: Path | None = None) -> str:
        return hashlib.sha256("\n".join(self._identity).encode()).hexdigest()

    # --------------------------------------------------------------------------------------------- starting

    async def start(self, name: str, size: Size, image: Path | None = None, slots: dict[int, Path] | None = None,
                    root: Path | None = None) -> Box:
        if image:
            raise Unavailable("no snapshots", "the docker runtime cannot restore one", "set EPHEMERAL_RUNTIME=gvisor")
        async with self._starts:
            return await whole(self._start(name, size, slots or {}, root or self._rootfs))

    async def _start(self, name: str, size: Size, slots: dict[int, Path], root: Path) -> Box:
        directory = self._run / "sandboxes" / name
        channel: Channel | None = None
        attached: Attached | None = None
        driver = _Container(self, name)
        try:
            slots_directory = prepare_directory(directory)
            connection = await asyncio.to_thread(self._create, name, size, slots_directory, root)
            channel, attached = await open_channel(connection)
            pid, cgroup = await asyncio.to_thread(self._run_it, name)
            driver.watch(pid, cgroup)
            box = Box(name, directory, channel, cgroup, size, driver, driver.exit_status)
            for slot, source in slots.items():
                box.mount(slot, source)
            await box.hello(BOOT_TIMEOUT_SECONDS)
            return box
        except BaseException as problem:
            if channel:
                channel.close()
            await driver.delete()
            clear(directory)
            if isinstance(problem, (Gone, *TROUBLE)):
                words = attached.words[-400:] if attached else ""
                raise Unavailable("sandbox did not start", f"{name} (boot): {problem}. {words}", "ephemeral doctor") from problem
            raise

    def _create(self, name: str, size: Size, slots: Path, root: Path) -> socket.socket:
        """Make the container and attach to it before it runs, so that nothing it says is lost. Blocking."""
        container = self._container(name)
        self._engine.containers.create(
            self._import_image(root), name=container, runtime=self._runtime,
            labels={GROUP_LABEL: self._group, NAME_LABEL: name}, **spec.docker_options(slots, self._guest, size))
        attached = self._engine.api.attach_socket(container, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        connection = socket.socket(fileno=os.dup(attached.fileno()))
        attached._response.close()
        return connection

    def _run_it(self, name: str) -> tuple[int, Cgroup]:
        self._engine.api.start(self._container(name))
        facts = self.facts(name)
        pid = facts["State"]["Pid"]
        return pid, Cgroup.of(pid, facts["Id"])

    # --------------------------------------------------------------------------------------------- one container

    def facts(self, name: str) -> dict[str, Any]:
        """What the engine knows of sandbox ``name``. Blocking; raises docker.errors.NotFound."""
        return dict(self._engine.api.inspect_container(self._container(name)))

    def signal(self, name: str, signal: str) -> None:
        """Blocking. A container that has just ended is not an error."""
        with contextlib.suppress(APIError):
            self._engine.api.kill(self._container(name), signal)

    async def remove(self, name: str) -> None:
        """Kill and remove what the engine knows of ``name``. Never raises."""
        try:
            await asyncio.to_thread(self._remove, name)
        except TROUBLE as problem:
            log.warning("Docker did not remove %s: %s", name, problem)

    def _remove(self, name: str) -> None:
        with contextlib.suppress(NotFound):
            facts = self.facts(name)
            # The engine knows nothing of our freezing, and a frozen process would not die of its signal.
            with contextlib.suppress(OSError):
                Cgroup.of(facts["State"]["Pid"], facts["Id"]).kill()
            self._engine.api.remove_container(facts["Id"], v=True, force=True)

    def _container(self, name: str) -> str:
        return f"{self._group.strip('/')}-{name}"

    async def reap(self) -> int:
        """Remove every container with our label and all that is mounted for it: nobody else uses this state directory."""
        left = self._run / "sandboxes"
        found = await asyncio.to_thread(self._engine.api.containers, all=True, filters={"label": f"{GROUP_LABEL}={self._group}"})
        names = {container["Labels"][NAME_LABEL] for container in found} | {entry.name for entry in left.iterdir()}
        for name in names:
            await self.remove(name)
            clear(left / name)
        return len(names)


class _Container:
    """Driver of one sandbox by the engine."""

    def __init__(self, runtime: DockerRuntime, name: str):
        self._runtime = runtime
        self._name = name
        self._pidfd = -1

    def watch(self, pid: int, cgroup: Cgroup) -> None:
        """Look at the control group the moment that the container's first process dies: the engine then removes the group, and what it
        tells of the death itself is a race between two of its events. Raises OSError when the process is gone already."""
        self._pidfd = os.pidfd_open(pid)

        def died() -> None:
            cgroup.remember()
            self._unwatch()

        asyncio.get_running_loop().add_reader(self._pidfd, died)

    def _unwatch(self) -> None:
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    async def interrupt(self) -> None:
        await asyncio.to_thread(self._runtime.signal, self._name, "SIGINT")

    async def out_of_memory(self) -> bool:
        state = await asyncio.to_thread(self._last_state)
        return bool(state and state["OOMKilled"])

    async def exit_status(self) -> int | None:
        state = await asyncio.to_thread(self._last_state)
        return int(state["ExitCode"]) if state and not state["Running"] else None

    def _last_state(self) -> dict[str, Any] | None:
        """The engine removes the control group of what has died, but keeps its verdict. The pipe closes a moment before it knows."""
        deadline = time.monotonic() + DEATH_SECONDS
        with contextlib.suppress(*TROUBLE):
            while (state := dict(self._runtime.facts(self._name)["State"]))["Running"] and time.monotonic() < deadline:
                time.sleep(0.02)
            return state
        return None

    async def checkpoint(self, image: Path) -> None:
        raise Unavailable("no snapshots", "the docker runtime cannot make one", "set EPHEMERAL_RUNTIME=gvisor")

    async def delete(self) -> None:
        self._unwatch()
        await self._runtime.remove(self._name)


def _isolation_of(runtime: str) -> str:
    """What an OCI runtime's name says of it, and no more."""
    if "runsc" in runtime:  # also io.containerd.runsc.v1
        return "gVisor"
    if "kata" in runtime:
        return "microVM"
    return f"as isolated as {runtime} is, the operator's choice"


def _host() -> str:
    return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"

