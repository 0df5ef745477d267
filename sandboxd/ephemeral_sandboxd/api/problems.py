"""Whatever goes wrong in a handler, the caller gets `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Iterable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from pydantic import ValidationError

from ephemeral import wire
from ephemeral_sandboxd.api.keys import ARRIVED
from ephemeral_sandboxd.errors import BadRequest, Busy, SandboxdError

log = logging.getLogger(__name__)

MANY = 5
"""More wrong fields than this are counted, not listed."""

HINTS = {
    404: "GET /openapi.json lists what there is.",
    405: "GET /openapi.json lists the methods of each path.",
    413: "Send less: large data belongs in a file that the code reads, not in the code.",
}


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The outermost layer, so that it also sees the moment of arrival first."""
    request[ARRIVED] = time.perf_counter()
    try:
        return await handler(request)
    except SandboxdError as error:
        response = _response(error.status, error.title, error.detail, error.hint)
        if isinstance(error, Busy):
            response.headers["Retry-After"] = str(math.ceil(error.retry_after_seconds))
        return response
    except ValidationError as error:
        return _invalid(error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        response = _response(
            error.status, error.reason, f"{request.method} {request.path}: {error.reason}.", HINTS.get(error.status, "")
        )
        if allow := error.headers.get("Allow"):
            response.headers["Allow"] = allow
        return response
    except ConnectionResetError:
        raise  # the caller has gone: nobody is left to tell
    except Exception:
        identity = secrets.token_hex(8)
        log.exception("problem %s: %s %s failed", identity, request.method, request.match_info.route.resource)
        return _response(
            500,
            "Internal error",
            f"A defect of sandboxd, recorded as {identity}.",
            f"Look for {identity} in sandboxd's log and report what it says.",
            identity,
        )


JSON = frozenset({"application/json", "application/octet-stream"})
"""The second stands for "nothing said": it is what HTTP clients send for bytes."""


def json_only(but: Iterable[tuple[str, str]]) -> Middleware:
    """A layer that refuses bodies which say that they are something else than JSON. `but`: (method, path as in the routes) of
    those that take anything."""
    anything = frozenset(but)

    @web.middleware
    async def layer(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.can_read_body and request.content_type not in JSON and not request.content_type.endswith("+json"):
            resource = request.match_info.route.resource
            if resource is not None and (request.method, resource.canonical) not in anything:
                raise BadRequest("Not JSON", "Content-Type says that the body is something else.", "Send Content-Type: application/json.", status=415)
        return await handler(request)

    return layer


def _response(status: int, title: str, detail: str, hint: str, identity: str | None = None) -> web.Response:
    problem = wire.Problem(title=title, status=status, detail=detail, hint=hint, id=identity)
    return web.Response(
        status=status, body=problem.model_dump_json(exclude_none=True).encode(), content_type="application/problem+json"
    )


def _invalid(error: ValidationError) -> web.Response:
    """Which field, and what it wants. What was sent is not repeated: it may be a conversation."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    if found[0]["type"] == "json_invalid":
        return _response(400, "Not JSON", f"The body is not JSON: {found[0]['msg']}.", "Send one JSON document, as UTF-8.")
    lines = [f"{'.'.join(str(part) for part in item['loc']) or 'body'}: {item['msg']}" for item in found[:MANY]]
    if len(found) > MANY:
        lines.append(f"and {len(found) - MANY} more")
    hint = f"GET /openapi.json describes {error.title}."
    return _response(422, "Invalid request", f"{error.title}: {'; '.join(lines)}.", hint)
