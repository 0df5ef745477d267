"""Whatever goes wrong in a handler, the caller gets `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import logging
import math
import secrets
import time

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import ValidationError

from ephemeral import wire
from ephemeral_sandboxd.api.keys import ARRIVED
from ephemeral_sandboxd.errors import Busy, SandboxdError

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
