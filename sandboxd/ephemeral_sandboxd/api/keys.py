"""What hangs on the application, and on a request."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from ephemeral_sandboxd.api.protocol import Daemon
from ephemeral_sandboxd.ledger import Recorder

DAEMON = web.AppKey("daemon", Daemon)
RECORDER = web.AppKey("recorder", Recorder)
DASHBOARD = web.AppKey("dashboard", Path)
OPENAPI = web.AppKey("openapi", bytes)

ARRIVED = web.RequestKey("arrived", float)
"""`time.perf_counter()` when the request's head had been read."""
