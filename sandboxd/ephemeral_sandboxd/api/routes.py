"""Every route of the API in one table. The router and the OpenAPI document are both made from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from ephemeral import wire
from ephemeral_sandboxd.api import handlers
from ephemeral_sandboxd.api.metrics import get_metrics
from ephemeral_sandboxd.api.stream import stream


@dataclass(frozen=True)
class Route:
    """`body` and `answer` are wire models or `list[model]`; an `answer` of None is a 204, `str` is plain text, `bytes` anything."""

    method: str
    path: str
    body: Any
    answer: Any
    summary: str
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    query: tuple[str, ...] = ()
    media: str = "application/json"
    token: bool = True
    also: tuple[str, ...] = ()
    """Media types that the answer may have as well, as Accept asks for."""
    problems: tuple[int, ...] = ()
    """What can go wrong beyond what openapi.py reads off the route itself."""


PAGED = ("limit", "before")

ROUTES: tuple[Route, ...] = (
    Route("POST", "/v1/sessions", wire.SessionRequest, wire.Session, "Open a session; idempotent for a given id", handlers.post_session, problems=(404,)),
    Route("GET", "/v1/sessions", None, wire.Page[wire.Session], "Sessions, newest first", handlers.get_sessions, PAGED),
    Route("GET", "/v1/sessions/{id}", None, wire.Session, "One session", handlers.get_session),
    Route("DELETE", "/v1/sessions/{id}", None, wire.Session, "End a session; its sandbox is gone within 5 s", handlers.delete_session),
    Route("PUT", "/v1/sessions/{id}/plan", wire.Plan, wire.PlanRecord, "Replace the session's plan; builds behind", handlers.put_plan, problems=(429, 503)),
    Route("GET", "/v1/sessions/{id}/plans", None, wire.Page[wire.PlanRecord], "The session's plans, newest first", handlers.get_plans),
    Route("POST", "/v1/sessions/{id}/moments", list[wire.Moment], None, "Add marks to the session's timeline", handlers.post_moments),
    Route("GET", "/v1/sessions/{id}/moments", None, wire.Page[wire.Moment], "The session's timeline, oldest first", handlers.get_moments),
    Route("PUT", "/v1/digests/{sha256}", wire.DigestClaim, None, "Say which session's code this is", handlers.put_digest),
    Route("PUT", "/v1/sessions/{id}/network", wire.NetworkGrant, wire.Session, "Say which domains the session's code may reach", handlers.put_network),
    Route("GET", "/v1/sessions/{id}/files", None, wire.Page[wire.File], "What a directory in the session's sandbox holds", handlers.get_files, ("path",), problems=(429, 503)),
    Route("GET", "/v1/sessions/{id}/files/content", None, bytes, "Download a file", handlers.get_file, ("path",), media="application/octet-stream", problems=(429, 503)),
    Route("PUT", "/v1/sessions/{id}/files/content", bytes, wire.File, "Upload a file", handlers.put_file, ("path",), problems=(429, 503, 507)),
    Route("DELETE", "/v1/sessions/{id}/files/content", None, None, "Delete a file", handlers.delete_file, ("path",), problems=(429, 503)),
    Route("POST", "/v1/executions", wire.ExecutionRequest, wire.Execution,
          "Run code and wait until it is done; with Accept: text/event-stream, a stream of pieces", handlers.post_execution,
          also=("text/event-stream",), problems=(404, 429, 503)),
    Route("POST", "/v1/executions/{id}/interrupt", None, None, "Stop the code; the session's variables survive", handlers.post_interrupt),
    Route("POST", "/v1/executions/{id}/stdin", wire.Feed, None, "Feed an interactive execution", handlers.post_stdin),
    Route("GET", "/v1/executions", None, wire.Page[wire.Execution], "Executions, newest first", handlers.get_executions, ("session", *PAGED)),
    Route("GET", "/v1/executions/{id}", None, wire.Execution, "One execution", handlers.get_execution),
    Route("GET", "/v1/environments", None, wire.Page[wire.Environment], "Environments that stand ready", handlers.get_environments),
    Route("POST", "/v1/environments", wire.EnvironmentRequest, wire.Environment, "Have packages ready to be mounted", handlers.post_environment, problems=(404, 429, 503)),
    Route("DELETE", "/v1/environments/{id}", None, None, "Drop an environment that nothing has mounted", handlers.delete_environment),
    Route("PUT", "/v1/environments/{id}/pin", None, wire.Environment, "Keep it whatever the disk budget says", handlers.put_pin),
    Route("DELETE", "/v1/environments/{id}/pin", None, wire.Environment, "Let the disk budget have it", handlers.delete_pin),
    Route("GET", "/v1/roots", None, wire.Page[wire.RootFilesystem], "Root filesystems, the default first", handlers.get_roots),
    Route("GET", "/v1/snapshots", None, wire.Page[wire.Snapshot], "Snapshots that stand ready", handlers.get_snapshots),
    Route("GET", "/v1/sandboxes", None, wire.Page[wire.Sandbox], "Sandboxes there are now", handlers.get_sandboxes),
    Route("DELETE", "/v1/sandboxes/{id}", None, None, "Kill a sandbox now", handlers.delete_sandbox),
    Route("GET", "/v1/host", None, wire.Host, "This host, its budgets and what is used of them", handlers.get_host),
    Route("GET", "/v1/costs", None, wire.Costs, "What things cost on this host, by what was measured on it", handlers.get_costs),
    Route("POST", "/v1/prune", wire.PruneRequest, wire.Pruned, "Forget sessions that ended long ago", handlers.post_prune, problems=(503,)),
    Route("GET", "/v1/stream", None, wire.Live, "Everything as it happens (server-sent events)", stream, media="text/event-stream"),
    Route("GET", "/openapi.json", None, dict, "This document", handlers.get_openapi, token=False),
    Route("GET", "/metrics", None, str, "For Prometheus", get_metrics, token=False, also=("application/openmetrics-text",)),
    Route("GET", "/healthz", None, str, "The process answers", handlers.healthz, token=False),
    Route("GET", "/readyz", None, str, "Executions can be served", handlers.readyz, token=False, problems=(503,)),
)
