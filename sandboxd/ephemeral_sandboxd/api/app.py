"""The application: one middleware chain, one table of routes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from aiohttp import web

from ephemeral_sandboxd.api import keys, openapi, routes, static
from ephemeral_sandboxd.api.metrics import METRICS, Metrics
from ephemeral_sandboxd.api.problems import json_only, problems
from ephemeral_sandboxd.api.protocol import Daemon
from ephemeral_sandboxd.api.security import Security
from ephemeral_sandboxd.ledger import Recorder

MAX_BODY_BYTES = 16 << 20
"""Two million characters of code, most of them escaped in JSON, still fit."""


def build(
    daemon: Daemon,
    recorder: Recorder,
    *,
    token: str,
    dashboard: Path | None,
    allowed_hosts: Iterable[str] = (),
    allowed_origins: Iterable[str] = (),
) -> web.Application:
    """The whole API over `daemon` and `recorder`.

    `token` opens `/v1` over TCP. `dashboard` is the folder of the built dashboard, None when there is none.
    `allowed_hosts` are host names (no port) beyond the loopback ones, `allowed_origins` whole origins
    (`http://localhost:5173`) beyond our own.
    """
    security = Security(token, hosts=allowed_hosts, origins=allowed_origins)
    raw = json_only((route.method, route.path) for route in routes.ROUTES if route.body is bytes)
    app = web.Application(middlewares=[problems, security.middleware, raw], client_max_size=MAX_BODY_BYTES)
    app[keys.DAEMON] = daemon
    app[keys.RECORDER] = recorder
    app[METRICS] = Metrics(daemon, recorder)
    app[keys.OPENAPI] = json.dumps(openapi.document(routes.ROUTES), separators=(",", ":")).encode()
    if dashboard is not None:
        app[keys.DASHBOARD] = dashboard
    for route in routes.ROUTES:
        app.router.add_route(route.method, route.path, route.handler)
    app.router.add_get("/", security.front_door)
    # Not below the API's own addresses: there an unknown one is a 404, and a wrong method a 405 that names the right ones.
    ours = "|".join(sorted({re.escape(route.path.split("/")[1]) for route in routes.ROUTES}))
    app.router.add_get(f"/{{path:(?!(?:{ours})(?:/|$)).*}}", static.serve_file)

    async def end_streams(_: web.Application) -> None:
        recorder.bus.close()

    app.on_shutdown.append(end_streams)
    return app
