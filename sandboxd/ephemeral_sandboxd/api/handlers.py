"""One small function a route: read the request, ask the daemon or the ledger, write the answer."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, TypeAdapter, ValidationError

from ephemeral import wire
from ephemeral_sandboxd.api.executions import streamed_execution
from ephemeral_sandboxd.api.keys import ARRIVED, DAEMON, OPENAPI, RECORDER
from ephemeral_sandboxd.errors import BadRequest, Unavailable

M = TypeVar("M", bound=BaseModel)

MAX_PAGE = 500

_MOMENTS = TypeAdapter(list[wire.Moment])
_DIGEST = TypeAdapter(wire.Digest)
_SESSION = TypeAdapter(wire.SessionId)
FILE_PIECE_BYTES = 4 << 20


# --------------------------------------------------------------------------------------------------- executions


async def post_execution(request: web.Request) -> web.StreamResponse:
    asked = await _body(request, wire.ExecutionRequest)
    if "text/event-stream" in request.headers.get("Accept", ""):
        return await streamed_execution(request, asked)
    execution = await request.app[DAEMON].execute(asked, request[ARRIVED])
    # What was answered is in the database, whatever is killed next.
    await request.app[RECORDER].flush()
    return _answer(execution)


async def post_interrupt(request: web.Request) -> web.Response:
    await request.app[DAEMON].interrupt(request.match_info["id"])
    return web.Response(status=204)


async def post_stdin(request: web.Request) -> web.Response:
    feed = await _body(request, wire.Feed)
    request.app[DAEMON].feed(request.match_info["id"], feed)
    return web.Response(status=204)


async def get_executions(request: web.Request) -> web.Response:
    limit, before = _page(request)
    session = _SESSION.validate_python(request.query["session"]) if "session" in request.query else None
    return _answer(await request.app[RECORDER].executions(session, limit, before))


async def get_execution(request: web.Request) -> web.Response:
    return _answer(await request.app[RECORDER].get_execution(request.match_info["id"]))


# --------------------------------------------------------------------------------------------------- sessions


async def post_session(request: web.Request) -> web.Response:
    asked = await _body(request, wire.SessionRequest)
    return _answer(request.app[DAEMON].open_session(asked))


async def get_sessions(request: web.Request) -> web.Response:
    limit, before = _page(request)
    return _answer(await request.app[RECORDER].sessions(limit, before))


async def get_session(request: web.Request) -> web.Response:
    return _answer(await request.app[RECORDER].get_session(request.match_info["id"]))


async def delete_session(request: web.Request) -> web.Response:
    return _answer(await request.app[DAEMON].end_session(request.match_info["id"]))


async def put_plan(request: web.Request) -> web.Response:
    plan = await _body(request, wire.Plan)
    _same_session(request, plan.session)
    return _answer(await request.app[DAEMON].put_plan(plan))


async def get_plans(request: web.Request) -> web.Response:
    return _answer(await request.app[RECORDER].plans(_session(request)))


async def post_moments(request: web.Request) -> web.Response:
    moments = _MOMENTS.validate_json(await request.read(), strict=True)
    for moment in moments:
        _same_session(request, moment.session)
    request.app[DAEMON].add_moments(moments)
    return web.Response(status=204)


async def get_moments(request: web.Request) -> web.Response:
    return _answer(await request.app[RECORDER].moments(_session(request)))


async def put_digest(request: web.Request) -> web.Response:
    digest = _DIGEST.validate_python(request.match_info["sha256"])
    claim = await _body(request, wire.DigestClaim)
    request.app[DAEMON].claim_digest(digest, claim.session)
    return web.Response(status=204)


async def put_network(request: web.Request) -> web.Response:
    grant = await _body(request, wire.NetworkGrant)
    return _answer(await request.app[DAEMON].grant_network(_session(request), grant))


# --------------------------------------------------------------------------------------------------- files of a session


async def get_files(request: web.Request) -> web.Response:
    files = await request.app[DAEMON].files.list(_session(request), _path(request, "."))
    return _answer(wire.Page[wire.File](items=files))


async def get_file(request: web.Request) -> web.StreamResponse:
    """The bytes, as an attachment: what a sandbox holds is never shown as a page of ours."""
    pieces = request.app[DAEMON].files.read(_session(request), _path(request))
    async with aclosing(pieces):  # a reader who goes leaves the sandbox to others at once
        first = await anext(pieces, b"")  # what is wrong with the path is said before the answer begins
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream", "Content-Disposition": "attachment"})
        await response.prepare(request)
        await response.write(first)
        async for piece in pieces:
            await response.write(piece)
    return response


async def put_file(request: web.Request) -> web.Response:
    pieces = request.content.iter_chunked(FILE_PIECE_BYTES)
    return _answer(await request.app[DAEMON].files.write(_session(request), _path(request), pieces))


async def delete_file(request: web.Request) -> web.Response:
    await request.app[DAEMON].files.delete(_session(request), _path(request))
    return web.Response(status=204)


# --------------------------------------------------------------------------------------------------- what stands ready


async def get_environments(request: web.Request) -> web.Response:
    return _answer(wire.Page[wire.Environment](items=request.app[DAEMON].environments()))


async def post_environment(request: web.Request) -> web.Response:
    asked = await _body(request, wire.EnvironmentRequest)
    return _answer(await request.app[DAEMON].make_environment(asked))


async def delete_environment(request: web.Request) -> web.Response:
    await request.app[DAEMON].drop_environment(request.match_info["id"])
    return web.Response(status=204)


async def put_pin(request: web.Request) -> web.Response:
    return _answer(await request.app[DAEMON].pin_environment(request.match_info["id"], True))


async def delete_pin(request: web.Request) -> web.Response:
    return _answer(await request.app[DAEMON].pin_environment(request.match_info["id"], False))


async def get_roots(request: web.Request) -> web.Response:
    return _answer(wire.Page[wire.RootFilesystem](items=request.app[DAEMON].roots()))


async def get_snapshots(request: web.Request) -> web.Response:
    return _answer(wire.Page[wire.Snapshot](items=request.app[DAEMON].snapshots()))


async def get_sandboxes(request: web.Request) -> web.Response:
    return _answer(wire.Page[wire.Sandbox](items=request.app[DAEMON].sandboxes()))


async def delete_sandbox(request: web.Request) -> web.Response:
    await request.app[DAEMON].delete_sandbox(request.match_info["id"])
    return web.Response(status=204)


async def get_host(request: web.Request) -> web.Response:
    return _answer(request.app[DAEMON].host())


async def get_costs(request: web.Request) -> web.Response:
    return _answer(request.app[RECORDER].costs())


async def post_prune(request: web.Request) -> web.Response:
    asked = await _body(request, wire.PruneRequest)
    return _answer(await request.app[RECORDER].prune(asked.older_than_days, dry_run=asked.dry_run, vacuum=asked.vacuum))


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


async def _body(request: web.Request, model: type[M]) -> M:
    """The request's JSON, of exactly the types that the document names. An empty body stands for all defaults."""
    text = await request.read() or (b"" if needs_body(model) else b"{}")
    try:
        return model.model_validate_json(text, strict=True)
    except ValidationError as problem:
        if any(item["type"] == "int_type" for item in problem.errors()):
            return model.model_validate_json(json.dumps(_whole(json.loads(text))), strict=True)
        raise


def _whole(value: Any) -> Any:
    """JSON knows one kind of number: 1.0 is an integer there."""
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def needs_body(model: type[BaseModel]) -> bool:
    """Whether there is a field that has to be given."""
    return any(field.is_required() for field in model.model_fields.values())


def _answer(model: wire.Wire) -> web.Response:
    return web.Response(body=model.model_dump_json().encode(), content_type="application/json")


def _page(request: web.Request) -> tuple[int, str | None]:
    text = request.query.get("limit", "100")
    # isdecimal would also accept digits of other scripts; a page size has no need of them.
    limit = int(text) if text.isascii() and text.isdigit() and len(text) <= 4 else 0
    if not 1 <= limit <= MAX_PAGE:
        raise BadRequest("Invalid limit", "limit wants a whole number.", f"Write 1 to {MAX_PAGE}, for example limit=50.")
    return limit, request.query.get("before")


def _session(request: web.Request) -> str:
    """The path's session id, of the form that ids have: it opens the session where it is new."""
    return _SESSION.validate_python(request.match_info["id"])


def _path(request: web.Request, default: str = "") -> str:
    path = request.query.get("path", default)
    if not path or "\0" in path or len(path) > 4096:
        raise BadRequest("Invalid path", "path names a file inside the sandbox.", "For example ?path=result.csv, relative to /scratch.")
    return path


def _same_session(request: web.Request, named: str) -> None:
    path = request.match_info["id"]
    if named != path:
        raise BadRequest(
            "Two sessions named", f"The address names session {path}, the body {named}.", "Name the same in both."
        )
