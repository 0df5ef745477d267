"""Real servers on 127.0.0.1 under names of the tests' own, and a guest that is nothing but its frames."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import os
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import trustme

from ephemeral_sandboxd.egress import Egress, EgressRecord
from ephemeral_sandboxd.egress.limits import Limits

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
PATIENCE_SECONDS = 30.0


class Names:
    """A name server: what it knows, answers in turn (the last one for ever), and what it was asked."""

    def __init__(self) -> None:
        self.addresses: dict[str, list[list[str]]] = {}
        self.asked: list[str] = []

    def point(self, host: str, *answers: str) -> None:
        """Each answer: addresses with spaces between."""
        self.addresses[host] = [answer.split() for answer in answers]

    async def __call__(self, host: str, port: int) -> list[tuple[Any, Any, int, str, Any]]:
        self.asked.append(host)
        answers = self.addresses.get(host)
        if answers is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [found for address in addresses for found in socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)]


@pytest.fixture
def names() -> Names:
    found = Names()
    found.point("api.example.com", "127.0.0.1")
    found.point("other.example.com", "127.0.0.1")
    return found


# ------------------------------------------------------------------------------------------------- servers


class Handler(BaseHTTPRequestHandler):
    """``/bytes/N``: so many; ``/silent``: never answers; anything else says hello. A POST is sent back."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.seen.append((self.command, self.path, dict(self.headers)))
        if self.path == "/silent":
            self.server.over.wait(PATIENCE_SECONDS)
            return
        count = int(self.path.rpartition("/")[2]) if self.path.startswith("/bytes/") else None
        body = b"hello" if count is None else b"x" * min(count, 1 << 20)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) if count is None else count))
        self.end_headers()
        if self.command == "HEAD":
            return
        left = len(body) if count is None else count
        while left:
            left -= self.wfile.write(body[:left])

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.server.seen.append((self.command, self.path, dict(self.headers)))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.end_headers()  # no length: its end is the connection's
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


class Origin(ThreadingHTTPServer):
    """A real server. ``seen``: (method, path, headers) of each request."""

    daemon_threads = True

    def __init__(self, tls: ssl.SSLContext | None = None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.over = threading.Event()
        self.tls = tls

    @property
    def port(self) -> int:
        return self.server_address[1]

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self.tls:
            connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def handle_error(self, *_: object) -> None:
        pass  # clients that are cut off are what is tested


@contextlib.contextmanager
def serving(origin: Origin) -> Iterator[Origin]:
    thread = threading.Thread(target=origin.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield origin
    finally:
        origin.over.set()
        origin.shutdown()
        origin.server_close()
        thread.join()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def web() -> Iterator[Origin]:
    with serving(Origin()) as origin:
        yield origin


@pytest.fixture
def secure(authority: trustme.CA) -> Iterator[Origin]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("api.example.com", "other.example.com").configure_cert(context)
    with serving(Origin(context)) as origin:
        yield origin


# ------------------------------------------------------------------------------------------------- the tunnel


class Program:
    """One connection of a program, spoken in frames: what a guest, honest or not, may send."""

    def __init__(self, guest: Guest, number: int):
        self._guest = guest
        self.number = number
        self.arrived = b""
        self.ended = False
        self.closed = False
        self.changed = asyncio.Event()

    def send(self, data: bytes) -> None:
        for start in range(0, len(data), 32 << 10):
            self._guest.put("net_data", self.number, data=base64.b64encode(data[start:start + (32 << 10)]).decode())

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def exchange(self, data: bytes = b"") -> str:
        """Send, and read until the proxy has closed."""
        self.send(data)
        await self.until(lambda: self.closed)
        return self.arrived.decode("latin-1")

    async def line(self, data: bytes) -> str:
        """Send, and read the head of an answer."""
        self.send(data)
        await self.until(lambda: b"\r\n\r\n" in self.arrived)
        head, _, self.arrived = self.arrived.partition(b"\r\n\r\n")
        return head.decode("latin-1")


class Guest:
    """A sandbox's end of the tunnel. ``generous``: it grants credit for what arrives."""

    def __init__(self, allow: list[str], names: Names, limits: Limits | None = None, **more: Any):
        self.records: list[EgressRecord] = []
        self.frames: list[dict[str, Any]] = []
        self.programs: dict[int, Program] = {}
        self.generous = True
        self._numbers = 0
        self.egress = Egress(allow, self._take, self.records.append, limits=limits or Limits(), resolve=names, **{"permit": LOOPBACK, **more})

    def put(self, op: str, number: object = None, **fields: Any) -> None:
        self.egress.receive({"op": op, "c": number, **fields})

    def open(self) -> Program:
        self._numbers += 1
        self.programs[self._numbers] = Program(self, self._numbers)
        self.put("net_open", self._numbers)
        return self.programs[self._numbers]

    def _take(self, frame: dict[str, Any]) -> None:
        self.frames.append(frame)
        program = self.programs.get(frame["c"])
        if program is None:
            return
        if frame["op"] == "net_data":
            data = base64.b64decode(frame["data"])
            program.arrived += data
            if self.generous:
                asyncio.get_running_loop().call_soon(lambda: self.put("net_credit", program.number, bytes=len(data)))
        program.ended |= frame["op"] in ("net_eof", "net_close")
        program.closed |= frame["op"] == "net_close"
        program.changed.set()


@pytest_asyncio.fixture
async def guest(names: Names) -> AsyncIterator[Callable[..., Guest]]:
    """Make a guest: ``guest(allow, limits=…)``. At the end nothing of it may be open."""
    made: list[Guest] = []

    def make(allow: list[str], limits: Limits | None = None, **more: Any) -> Guest:
        made.append(Guest(allow, names, limits, **more))
        return made[-1]

    yield make
    for one in made:
        await one.egress.close()
        assert one.egress.active == 0


def _connections() -> set[str]:
    """Sockets of this process that are connected to anything, by their inode."""
    found = set()
    for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "01":
            found.add(fields[9])
    own = set()
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            own.add(os.readlink(f"/proc/self/fd/{entry}"))
    return {inode for inode in found if f"socket:[{inode}]" in own}


@pytest.fixture
def open_connections() -> Callable[[], set[str]]:
    return _connections


@pytest.fixture
def loopback() -> tuple[Any, ...]:
    """What egress is permitted beyond public addresses: the tests' own servers."""
    return LOOPBACK
