"""A provider over TLS that speaks HTTP/1.1 and HTTP/2 (hypercorn), for the ways that need both."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path

import trustme
from hypercorn.asyncio import serve
from hypercorn.config import Config


class ModernProvider:
    """Answers every request with ``pieces`` as server-sent events. ``seen``: (HTTP version, method, path, headers, body)."""

    def __init__(self, folder: Path, plain: bool = False) -> None:
        self.pieces: list[bytes] = []
        self.status = 200
        self.headers: list[tuple[bytes, bytes]] = [(b"content-type", b"text/event-stream"), (b"x-twice", b"a"), (b"x-twice", b"b")]
        self.seen: list[tuple] = []
        self.gone = threading.Event()
        self.endless = False
        authority = trustme.CA()
        self.ca = folder / "provider-ca.pem"
        authority.cert_pem.write_to_path(str(self.ca))
        config = Config()
        if not plain:
            server = authority.issue_cert("localhost", "127.0.0.1")
            server.private_key_and_cert_chain_pem.write_to_path(str(folder / "provider.pem"))
            config.certfile = config.keyfile = str(folder / "provider.pem")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        config.bind = [f"127.0.0.1:{self.port}"]
        config.include_date_header = config.include_server_header = False
        config.errorlog = config.accesslog = None
        self._config = config
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(serve(self._app, self._config, shutdown_trigger=self._stop.wait))

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    async def _app(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        path = scope["raw_path"].decode() + ("?" + scope["query_string"].decode() if scope["query_string"] else "")
        self.seen.append((scope["http_version"], scope["method"], path, list(scope["headers"]), body))
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        for piece in self.pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if self.endless:
            await receive()  # http.disconnect: the client has gone
            self.gone.set()
            return
        await send({"type": "http.response.body", "body": b""})


def wait_for_port(port: int) -> None:
    for _ in range(3000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        threading.Event().wait(0.01)
    raise AssertionError("the provider did not start")
