"""`python -m ephemeral_mcp`: streamable HTTP at http://127.0.0.1:EPHEMERAL_MCP_PORT/mcp; with `--stdio`, standard input."""

from __future__ import annotations

import argparse
import logging
import socket
import sys

import uvicorn
import uvloop
from mcp.server.transport_security import TransportSecuritySettings

from ephemeral import logs, settings
from ephemeral_mcp.door import Door
from ephemeral_mcp.link import Link, LinkError
from ephemeral_mcp.server import build

MAX_BODY_BYTES = 16 << 20
"""As much code as sandboxd takes, escaped as JSON."""

log = logging.getLogger("ephemeral_mcp")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ephemeral_mcp", description="The MCP server of Ephemeral.")
    parser.add_argument("--stdio", action="store_true", help="speak MCP on standard input and output")
    arguments = parser.parse_args()
    try:
        logs.begin()
        if arguments.stdio:
            uvloop.run(serve_stdio())
        else:
            uvloop.run(serve_http(settings.get("mcp_port")))
    except (settings.SettingError, LinkError) as problem:
        sys.exit(f"ephemeral_mcp: {problem}")
    except KeyboardInterrupt:
        pass


async def serve_stdio() -> None:
    async with Link() as link:
        await build(link, stdio=True).run_stdio_async()


async def serve_http(port: int) -> None:
    """Until SIGTERM or SIGINT. Exits with one sentence when the port is taken."""
    listener = _listen(port)
    async with Link() as link:
        app = build(link, stdio=False).streamable_http_app(
            json_response=True,
            stateless_http=True,
            max_request_body_size=MAX_BODY_BYTES,
            # The SDK checks Host and Origin on /mcp alone; the door does on every route, so it is done there and once.
            transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        )
        config = uvicorn.Config(
            Door(app), log_config=None, log_level="warning", access_log=False, lifespan="on", timeout_keep_alive=600, timeout_graceful_shutdown=3
        )
        log.info("listening on http://127.0.0.1:%d/mcp", listener.getsockname()[1])
        await uvicorn.Server(config).serve(sockets=[listener])


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(1024)  # from here on callers wait in the queue, and "listening" is true
    except OSError as problem:
        sys.exit(
            f"ephemeral_mcp: port {port} cannot be used ({problem.strerror}). Find who has it (ss -ltnp 'sport = :{port}'), or "
            "set EPHEMERAL_MCP_PORT to another."
        )
    return listener


if __name__ == "__main__":
    main()
