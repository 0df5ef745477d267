"""Every route of the API in one table. The router and the OpenAPI document are both made from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from ephemeral import wire
from ephemeral_sandboxd.api import handlers
from ephemeral_sandboxd.api.stream import stream


@dataclass(frozen=True)
class Route:
    """`body` and `answer` are wire models or `list[model]`; an `answer` of None is a 204, `str` is plain text."""

    method: str
    path: str
    body: Any
    answer: Any
    summary: str
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    query: tuple[str, ...] = ()
    media: str = "application/json"
    token: bool = True


PAGED = ("limit", "before")

ROUTES: tuple[Route, ...] = (
    Route("POST", "/v1/sessions", wire.SessionRequest, wire.Session, "Open a session; idempotent for a given id", handlers.post_session),
    Route("GET", "/v1/sessions", None, wire.Page[wire.Session], "Sessions, newest first", handlers.get_sessions, PAGED),
    Route("GET", "/v1/sessions/{id}", None, wire.Session, "One session", handlers.get_session),
    Route("DELETE", "/v1/sessions/{id}", None, wire.Session, "End a session; its sandbox is gone within 5 s", handlers.delete_session),
    Route("PUT", "/v1/sessions/{id}/plan", wire.Plan, wire.PlanRecord, "Replace the session's plan; builds behind", handlers.put_plan),
    Route("GET", "/v1/sessions/{id}/plans", None, wire.Page[wire.PlanRecord], "The session's plans, newest first", handlers.get_plans),
    Route("POST", "/v1/sessions/{id}/moments", list[wire.Moment], None, "Add marks to the session's timeline", handlers.post_moments),
    Route("GET", "/v1/sessions/{id}/moments", None, wire.Page[wire.Moment], "The session's timeline, oldest first", handlers.get_moments),
    Route("PUT", "/v1/digests/{sha256}", wire.DigestClaim, None, "Say which session's code this is", handlers.put_digest),
    Route("POST", "/v1/executions", wire.ExecutionRequest, wire.Execution, "Run code and wait until it is done", handlers.post_execution),
    Route("GET", "/v1/executions", None, wire.Page[wire.Execution], "Executions, newest first", handlers.get_executions, ("session", *PAGED)),
    Route("GET", "/v1/executions/{id}", None, wire.Execution, "One execution", handlers.get_execution),
    Route("GET", "/v1/environments", None, wire.Page[wire.Environment], "Environments that stand ready", handlers.get_environments),
    Route("GET", "/v1/snapshots", None, wire.Page[wire.Snapshot], "Snapshots that stand ready", handlers.get_snapshots),
    Route("GET", "/v1/sandboxes", None, wire.Page[wire.Sandbox], "Sandboxes there are now", handlers.get_sandboxes),
    Route("DELETE", "/v1/sandboxes/{id}", None, None, "Kill a sandbox now", handlers.delete_sandbox),
    Route("GET", "/v1/host", None, wire.Host, "This host, its budgets and what is used of them", handlers.get_host),
    Route("GET", "/v1/stream", None, wire.Live, "Everything as it happens (server-sent events)", stream, media="text/event-stream"),
    Route("GET", "/openapi.json", None, dict, "This document", handlers.get_openapi, token=False),
    Route("GET", "/healthz", None, str, "The process answers", handlers.healthz, token=False),
    Route("GET", "/readyz", None, str, "Executions can be served", handlers.readyz, token=False),
)
