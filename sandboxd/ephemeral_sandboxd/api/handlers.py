"""One small function a route: read the request, ask the daemon or the ledger, write the answer."""

from __future__ import annotations

from aiohttp import web
from pydantic import TypeAdapter

from ephemeral import wire
from ephemeral_sandboxd.api.keys import ARRIVED, DAEMON, OPENAPI, RECORDER
from ephemeral_sandboxd.errors import BadRequest, Unavailable

MAX_PAGE = 500

_MOMENTS = TypeAdapter(list[wire.Moment])
_DIGEST = TypeAdapter(wire.Digest)


# --------------------------------------------------------------------------------------------------- executions


async def post_execution(request: web.Request) -> web.Response:
    asked = wire.ExecutionRequest.model_validate_json(await request.read())
    return _answer(await request.app[DAEMON].execute(asked, request[ARRIVED]))


async def get_executions(request: web.Request) -> web.Response:
    limit, before = _page(request)
    return _answer(await request.app[RECORDER].executions(request.query.get("session"), limit, before))


async def get_execution(request: web.Request) -> web.Response:
    return _answer(await request.app[RECORDER].get_execution(request.match_info["id"]))


# --------------------------------------------------------------------------------------------------- sessions


async def post_session(request: web.Request) -> web.Response:
    asked = wire.SessionRequest.model_validate_json(await request.read() or b"{}")
    return _answer(request.app[DAEMON].open_session(asked))


async def get_sessions(request: web.Request) -> web.Response:
    limit, before = _page(request)
    return _answer(await request.app[RECORDER].sessions(limit, before))


async def get_session(request: web.Request) -> web.Response:
    return _answer(await request.app[RECORDER].get_session(request.match_info["id"]))


async def delete_session(request: web.Request) -> web.Response:
    return _answer(await request.app[DAEMON].end_session(request.match_info["id"]))


async def put_plan(request: web.Request) -> web.Response:
    plan = wire.Plan.model_validate_json(await request.read())
    _same_session(request, plan.session)
    return _answer(await request.app[DAEMON].put_plan(plan))


async def get_plans(request: web.Request) -> web.Response:
    return _answer(await request.app[RECORDER].plans(request.match_info["id"]))


async def post_moments(request: web.Request) -> web.Response:
    moments = _MOMENTS.validate_json(await request.read())
    for moment in moments:
        _same_session(request, moment.session)
    request.app[DAEMON].add_moments(moments)
    return web.Response(status=204)


async def get_moments(request: web.Request) -> web.Response:
    return _answer(await request.app[RECORDER].moments(request.match_info["id"]))


async def put_digest(request: web.Request) -> web.Response:
    digest = _DIGEST.validate_python(request.match_info["sha256"])
    claim = wire.DigestClaim.model_validate_json(await request.read())
    request.app[DAEMON].claim_digest(digest, claim.session)
    return web.Response(status=204)


# --------------------------------------------------------------------------------------------------- what stands ready


async def get_environments(request: web.Request) -> web.Response:
    return _answer(wire.Page[wire.Environment](items=request.app[DAEMON].environments()))


async def get_snapshots(request: web.Request) -> web.Response:
    return _answer(wire.Page[wire.Snapshot](items=request.app[DAEMON].snapshots()))


async def get_sandboxes(request: web.Request) -> web.Response:
    return _answer(wire.Page[wire.Sandbox](items=request.app[DAEMON].sandboxes()))


async def delete_sandbox(request: web.Request) -> web.Response:
    await request.app[DAEMON].delete_sandbox(request.match_info["id"])
    return web.Response(status=204)


async def get_host(request: web.Request) -> web.Response:
    return _answer(request.app[DAEMON].host())


# --------------------------------------------------------------------------------------------------- without a token


async def get_openapi(request: web.Request) -> web.Response:
    return web.Response(body=request.app[OPENAPI], content_type="application/json")


async def healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def readyz(request: web.Request) -> web.Response:
    if (missing := request.app[DAEMON].ready()) is not None:
        raise Unavailable("Not ready", missing, "Wait, or type: ephemeral doctor")
    return web.Response(text="ready\n")


# --------------------------------------------------------------------------------------------------- helpers


def _answer(model: wire.Wire) -> web.Response:
    return web.Response(body=model.model_dump_json().encode(), content_type="application/json")


def _page(request: web.Request) -> tuple[int, str | None]:
    text = request.query.get("limit", "100")
    # isdecimal would also accept digits of other scripts; a page size has no need of them.
    limit = int(text) if text.isascii() and text.isdigit() and len(text) <= 4 else 0
    if not 1 <= limit <= MAX_PAGE:
        raise BadRequest("Invalid limit", "limit wants a whole number.", f"Write 1 to {MAX_PAGE}, for example limit=50.")
    return limit, request.query.get("before")


def _same_session(request: web.Request, named: str) -> None:
    path = request.match_info["id"]
    if named != path:
        raise BadRequest(
            "Two sessions named", f"The address names session {path}, the body {named}.", "Name the same in both."
        )
