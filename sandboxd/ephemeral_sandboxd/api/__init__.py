"""sandboxd's HTTP API: `build` makes the application, `serve` opens its two doors (TCP and Unix socket)."""

from ephemeral_sandboxd.api.app import build
from ephemeral_sandboxd.api.protocol import Daemon
from ephemeral_sandboxd.api.serving import Served, serve

__all__ = ["Daemon", "Served", "build", "serve"]
