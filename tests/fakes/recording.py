"""A predictor that records the events it is sent: a server on a Unix socket, as the predictor's own is."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

PATIENCE = 30.0
"""Seconds that anything may take on a slow machine before a test calls it lost."""


class Predictor(socketserver.ThreadingUnixStreamServer):
    """Records events. ``hang`` makes it accept and never answer."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        super().__init__(str(path), _Connection)
        self.events: list[dict] = []
        self.changed = threading.Condition()
        self.hang = False
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def wait(self, enough: Callable[[list[dict]], object], session: str | None = None) -> list[dict]:
        """The events (of ``session``) once ``enough`` holds for them."""

        def mine() -> list[dict]:
            return [event for event in self.events if session in (None, event["session"])]

        with self.changed:
            assert self.changed.wait_for(lambda: enough(mine()), PATIENCE), f"only these events came: {mine()}"
            return mine()

    def ended(self, session: str | None = None, turns: int = 1) -> list[dict]:
        """The events of ``session`` once ``turns`` of its turns have ended."""
        return self.wait(lambda events: sum(event["kind"] == "turn_ended" for event in events) >= turns, session)


class _Connection(BaseHTTPRequestHandler):
    server: Predictor
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        lines = self.rfile.read(int(self.headers["Content-Length"])).splitlines()
        if self.server.hang:
            threading.Event().wait(PATIENCE)
            return
        with self.server.changed:
            self.server.events += [json.loads(line) for line in lines]
            self.server.changed.notify_all()
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass
