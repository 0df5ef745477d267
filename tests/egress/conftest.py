"""Real servers under `localhost`, and a sandbox's end of the tunnel: bare frames, or the guest's own tunnel.py in this process."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import ipaddress
import os
import ssl
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trustme

from ephemeral_sandboxd.egress import Egress, EgressRecord

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
TUNNEL = Path(__file__).parents[2] / "sandboxd/ephemeral_sandboxd/guest/tunnel.py"
PATIENCE_SECONDS = 30.0


class Handler(BaseHTTPRequestHandler):
    """Says what it was asked: path, Host, Proxy-Authorization. ``/big`` is 2 MiB; a POST is sent back."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        said = f"{self.path} {self.headers['Host']} {self.headers['Proxy-Authorization']}".encode()
        self._send(b"z" * (2 << 20) if self.path == "/big" else said)

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self._send(self.rfile.read(int(self.headers["Content-Length"])))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return self._send(body)

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass  # clients that are cut off are part of what is tested


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """``http`` and ``https``: their ports; ``authority``: the file that clients trust."""
    authority = trustme.CA()
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    plain, secure = Server(("127.0.0.1", 0), Handler), Server(("127.0.0.1", 0), Handler)
    secure.socket = context.wrap_socket(secure.socket, server_side=True, do_handshake_on_connect=False)
    threads = [threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}) for server in (plain, secure)]
    for thread in threads:
        thread.start()
    yield SimpleNamespace(http=plain.server_address[1], https=secure.server_address[1], authority=path)
    for server, thread in zip((plain, secure), threads, strict=True):
        server.shutdown()
        server.server_close()
        thread.join()


class Frames:
    """A guest that is nothing but its frames: it grants no credit, and takes what comes."""

    def __init__(self, allow: list[str], permit: Any):
        self.sent: list[dict[str, Any]] = []
        self.records: list[EgressRecord] = []
        self._heard: dict[int, bytes] = defaultdict(bytes)
        self._closed: dict[int, asyncio.Event] = defaultdict(asyncio.Event)
        self.egress = Egress(allow, self._take, self.records.append, permit=permit)

    def _take(self, frame: dict[str, Any]) -> None:
        self.sent.append(frame)
        if frame["op"] == "net_data":
            self._heard[frame["c"]] += base64.b64decode(frame["data"])
        elif frame["op"] == "net_close":
            self._closed[frame["c"]].set()

    async def say(self, number: int, data: bytes) -> None:
        """Open connection ``number`` and send."""
        self.egress.receive({"op": "net_open", "c": number})
        for start in range(0, len(data), 32 << 10):
            self.egress.receive({"op": "net_data", "c": number, "data": base64.b64encode(data[start:start + (32 << 10)]).decode()})

    def heard(self, number: int) -> bytes:
        return self._heard[number]

    async def answer(self, number: int, data: bytes) -> bytes:
        """All that is said to ``data`` until the connection is closed."""
        await self.say(number, data)
        self.egress.receive({"op": "net_eof", "c": number})
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._closed[number].wait()
        return self.heard(number)


@pytest.fixture
async def tunnel() -> AsyncIterator[Callable[..., Frames]]:
    made: list[Frames] = []

    def make(allow: list[str], permit: Any = LOOPBACK) -> Frames:
        made.append(Frames(allow, permit))
        return made[-1]

    yield make
    for one in made:
        await one.egress.close()
        assert one.egress.active == 0


@pytest.fixture
async def joined(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[[list[str]], SimpleNamespace]]:
    """The guest's tunnel.py and an Egress, each other's ends: ``proxy`` is the address that clients use, ``records`` what was written down."""
    spec = importlib.util.spec_from_file_location("ephemeral_tunnel", TUNNEL)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(os, "environ", os.environ.copy())  # the listener points this process's variables at itself
    loop = asyncio.get_running_loop()
    made: list[tuple[Any, Egress]] = []

    def make(allow: list[str]) -> SimpleNamespace:
        records: list[EgressRecord] = []
        inside = module.Tunnel(lambda frame: loop.call_soon_threadsafe(egress.receive, frame))
        egress = Egress(allow, inside.receive, records.append, permit=LOOPBACK)
        made.append((inside, egress))
        return SimpleNamespace(proxy=f"http://127.0.0.1:{inside.open({})['port']}", records=records, egress=egress)

    yield make
    for inside, egress in made:
        await egress.close()
        assert egress.active == 0
        await asyncio.to_thread(inside.close)  # its thread speaks to this loop to the last
