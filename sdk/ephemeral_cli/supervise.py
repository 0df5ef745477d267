"""Starts services as child processes, keeps them running, and stops them in order.

Each child leads a process group of its own, so that Ctrl-C reaches only us and we stop them in our order; and each is
told by the kernel when we die (PR_SET_PDEATHSIG), so that a kill -9 of us leaves none behind.

The sockets that a service listens on can be ours (``Service.listen``): they stay open while it is started anew, so that
nobody is refused meanwhile: connections wait in the backlog. They are handed on by systemd's protocol (sd_listen_fds(3)).
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from ephemeral_cli.errors import CommandError

LOG_LIMIT_BYTES = 8 << 20
FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 10.0
STEADY_SECONDS = 20.0
"""Who lived this long is restarted without delay again."""
STOP_SECONDS = 20.0
BACKLOG = 1024
PR_SET_PDEATHSIG = 1
HANDING_ON = Path(__file__).with_name("handing_on.py")

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Listener:
    """A port of 127.0.0.1 that is kept open for a service. ``name`` is what the service is told, without a colon; ``setting``
    the variable that changes the port."""

    name: str
    port: int
    setting: str


@dataclass(frozen=True)
class Service:
    """A process to run. ``health`` is ``http://127.0.0.1:port/path`` or ``unix:/socket`` (asked for ``/healthz``): any
    answer below 500 means that it serves. ``port`` is the one it will listen on, ``port_setting`` the variable that
    changes it. ``listen`` are the ports, that one among them, whose sockets it does not open but is handed."""

    name: str
    command: Sequence[str]
    health: str
    port: int = 0
    port_setting: str = ""
    ready_seconds: float = 60.0
    listen: tuple[Listener, ...] = ()


class Supervisor:
    """Runs ``services`` over the state directory ``state``, with ``environment`` added to ours.

    ``async with Supervisor(...)`` starts them and waits until all answer; leaving stops them in reverse order. ``say``
    is told one sentence for each thing that goes wrong meanwhile. Start it from the main thread: the kernel's death
    signal follows the thread that started a child, not the process.
    """

    def __init__(self, state: Path, services: Sequence[Service], environment: Mapping[str, str] | None = None,
                 say: Callable[[str], None] = lambda line: None):
        self.state = state
        self.services = tuple(services)
        ours = {name: value for name, value in os.environ.items() if not name.startswith("LISTEN_")}  # sockets handed to us are not theirs
        self._environment = {**ours, **(environment or {}), "PYTHONUNBUFFERED": "1"}
        self._say = say
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._sockets: dict[str, list[socket.socket]] = {}
        self._stopping = False

    async def __aenter__(self) -> Supervisor:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def pid(self, name: str) -> int:
        """Process id of service ``name`` as it runs now. Raises KeyError when it does not."""
        return self._running[name].pid

    async def start(self) -> None:
        """Start all and wait for each in order. Raises CommandError (and leaves nothing running) when one cannot."""
        prepare_state(self.state)
        for service in self.services:
            check_port(service)
        try:
            for service in self.services:
                self._listen(service)
            for service in self.services:
                await self._spawn(service)
            for service in self.services:
                await self._wait_ready(service)
        except BaseException:
            await asyncio.shield(self.stop())
            raise
        for service in self.services:
            self._keepers[service.name] = asyncio.create_task(self._keep(service), name=f"keep {service.name}")

    async def stop(self) -> None:
        """Stop all, the last started first, and wait for each. Safe to call twice."""
        self._stopping = True
        for task in self._keepers.values():
            task.cancel()
        await asyncio.gather(*self._keepers.values(), return_exceptions=True)
        self._keepers.clear()
        for service in reversed(self.services):
            process = self._running.pop(service.name, None)
            if process is not None:
                await self._end(service, process)
            for listener in self._sockets.pop(service.name, []):
                listener.close()

    def _listen(self, service: Service) -> None:
        """Open the sockets of ``service``, which live as long as we do."""
        ours = self._sockets[service.name] = []
        for place in service.listen:
            ours.append(_listening(place.port, service.name, place.setting))

    async def _spawn(self, service: Service) -> None:
        log = os.open(self.log(service.name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        descriptors = [listener.fileno() for listener in self._sockets[service.name]]
        command, environment = service.command, self._environment
        if descriptors:  # inheritable in this child alone; it puts them in their places and becomes the service
            command = [sys.executable, "-I", "-S", str(HANDING_ON), ",".join(map(str, descriptors)), *command]
            environment = {**environment, "LISTEN_FDNAMES": ":".join(place.name for place in service.listen)}
        try:
            self._running[service.name] = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
                start_new_session=True, preexec_fn=_die_with(os.getpid()), pass_fds=descriptors,
            )
        except OSError as problem:
            raise CommandError(f"{service.name} cannot be started: {service.command[0]}: {problem.strerror}") from None
        finally:
            os.close(log)

    async def _wait_ready(self, service: Service) -> None:
        process = self._running[service.name]
        deadline = time.monotonic() + service.ready_seconds
        while not await self._answers(service, process):
            if process.returncode is not None:
                raise CommandError(f"{service.name} ended at its start ({_how(process.returncode)}): {self._last_words(service.name)}",
                                   f"ephemeral doctor; the whole log is {self.log(service.name)}", 2 if process.returncode == 2 else 1)
            if time.monotonic() > deadline:
                raise CommandError(f"{service.name} did not answer within {service.ready_seconds:g} s: {self._last_words(service.name)}",
                                   f"the whole log is {self.log(service.name)}")
            await asyncio.sleep(0.05)

    async def _answers(self, service: Service, process: asyncio.subprocess.Process) -> bool:
        """Whether it serves; asked no longer than it lives, for a socket of ours accepts in the place of a dead one too."""
        asking, ending = asyncio.create_task(answers(service.health)), asyncio.create_task(process.wait())
        try:
            await asyncio.wait({asking, ending}, return_when=asyncio.FIRST_COMPLETED)
            return asking.done() and not ending.done() and asking.result()
        finally:
            asking.cancel()
            ending.cancel()
            await asyncio.gather(asking, ending, return_exceptions=True)

    async def _keep(self, service: Service) -> None:
        """Restart ``service`` whenever it ends: at once, and the later the more often it ends soon after its start."""
        delay = 0.0
        while True:
            started = time.monotonic()
            process = self._running[service.name]
            await process.wait()
            if self._stopping:
                return
            _signal_group(process.pid, signal.SIGKILL)  # what it left behind
            if time.monotonic() - started > STEADY_SECONDS:
                delay = 0.0
            when = f"in {delay:g} s" if delay else "at once"
            self._say(f"{service.name} ended ({_how(process.returncode)}), starting it again {when}: {self._last_words(service.name)}")
            await asyncio.sleep(delay)
            delay = min(max(delay * 2, FIRST_DELAY_SECONDS), LONGEST_DELAY_SECONDS)
            try:
                await self._spawn(service)
            except CommandError as problem:
                self._say(problem.message)

    async def _end(self, service: Service, process: asyncio.subprocess.Process) -> None:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            except TimeoutError:
                self._say(f"{service.name} did not stop within {STOP_SECONDS:g} s and was killed")
        _signal_group(process.pid, signal.SIGKILL)
        await process.wait()

    def log(self, name: str) -> Path:
        """Where service ``name`` writes what it has to say."""
        return self.state / "logs" / f"{name}.log"

    def _last_words(self, name: str) -> str:
        try:
            with self.log(name).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            lines = []
        spoken = [line.strip() for line in lines if line.strip()]
        return spoken[-1][:300] if spoken else "it said nothing"


def prepare_state(state: Path) -> None:
    """Make the state directory (0700) with its token (0600) and log folder; logs that have grown large are put aside."""
    logs = state / "logs"
    try:
        for directory in (state, logs):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        state.chmod(0o700)
        make_token(state / "token")
        for log in logs.glob("*.log"):
            if log.stat().st_size > LOG_LIMIT_BYTES:
                log.replace(log.with_suffix(".log.1"))
    except OSError as problem:
        raise CommandError(f"the state directory cannot be used: {problem.filename}: {problem.strerror}",
                           "run as root, or set EPHEMERAL_STATE to a directory of yours", 2) from None


def make_token(path: Path) -> None:
    """A new random token at ``path``, readable by its owner only, unless there is one."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        path.chmod(0o600)
        return
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(32) + "\n")


def check_port(service: Service) -> None:
    """Raise CommandError when the port of ``service``, or one that is kept open for it, cannot be listened on."""
    if service.port and service.port not in [place.port for place in service.listen]:
        _listening(service.port, service.name, service.port_setting).close()
    for place in service.listen:
        _listening(place.port, service.name, place.setting).close()


def _listening(port: int, wanted_by: str, setting: str) -> socket.socket:
    """A socket that listens at ``port`` of 127.0.0.1. Raises CommandError when there can be none."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(BACKLOG)
    except OSError as problem:
        listener.close()
        raise CommandError(f"port {port}, wanted by {wanted_by}, is taken ({problem.strerror})",
                           f"stop what listens there, or set {setting} to another port", 2) from None
    except OverflowError:
        listener.close()
        raise CommandError(f"{port} is no port number", f"set {setting} to one below 65536", 2) from None
    return listener


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def answers(health: str) -> bool:
    """Whether something serves at ``health`` (see Service)."""
    if health.startswith("unix:"):
        transport, url = httpx.AsyncHTTPTransport(uds=health.removeprefix("unix:")), "http://localhost/healthz"
    else:
        transport, url = httpx.AsyncHTTPTransport(), health
    try:
        async with httpx.AsyncClient(transport=transport, timeout=5, trust_env=False) as client:
            return (await client.get(url)).status_code < 500
    except (httpx.HTTPError, OSError):
        return False


def _die_with(parent: int) -> Callable[[], None]:
    """For the child, before it becomes the program: SIGTERM when we die, so that it can still tidy up."""

    def prepare() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # we died between the fork and the line above

    return prepare


def _signal_group(leader: int, number: signal.Signals) -> None:
    try:
        os.killpg(leader, number)
    except (ProcessLookupError, PermissionError):
        pass  # the group is gone


def _how(status: int | None) -> str:
    if status is None:
        return "running"
    return f"exit {status}" if status >= 0 else signal.Signals(-status).name
