"""The OpenAPI 3.1 document, made from the table of routes and the wire models."""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema

from ephemeral import wire
from ephemeral_sandboxd import version
from ephemeral_sandboxd.api.handlers import MAX_PAGE, needs_body
from ephemeral_sandboxd.api.routes import Route

Role = tuple[type[BaseModel], Literal["validation", "serialization"]]
Schema = dict[str, Any]

SESSION = TypeAdapter(wire.SessionId).json_schema()
IDENTITY = {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[A-Za-z0-9][A-Za-z0-9._:@+-]*$"}
"""What sandboxd's own ids look like: of executions, environments, sandboxes."""

QUERY: dict[str, Schema] = {
    "limit": {"schema": {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": 100}, "description": "Rows a page"},
    "before": {"schema": IDENTITY, "description": "`next` of the page before"},
    "session": {"schema": SESSION, "description": "Only those of this session"},
    "path": {"schema": {"type": "string", "minLength": 1, "maxLength": 4096, "pattern": r"^[^\x00]+$"}, "description": "Relative to /scratch, or absolute"},
}
PATH: dict[str, Schema] = {"id": IDENTITY, "sha256": TypeAdapter(wire.Digest).json_schema()}

WHITE = r"\t\n\v\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""What pydantic takes \\s for, to be written inside a class."""

RAW = "application/octet-stream"

WRONG = {
    400: "It cannot be meant like this",
    401: "No valid token",
    403: "Understood, and not allowed",
    404: "There is no such thing",
    413: "Too large",
    415: "The body is not JSON",
    421: "The Host header names no host of ours",
    422: "A field has a value that it cannot have",
    429: "Not now; Retry-After says when",
    503: "Something that sandboxd needs is not there",
    507: "No space left in the sandbox",
}
"""Statuses of problems, as the document explains them."""


def document(routes: Iterable[Route]) -> Schema:
    """The document, ready for `json.dumps`."""
    routes = tuple(routes)
    roles: set[Role] = {(wire.Problem, "serialization")}
    for route in routes:
        roles |= {(model, "validation") for model in _models(route.body)}
        roles |= {(model, "serialization") for model in _models(route.answer)}
    ordered = sorted(roles, key=lambda role: (role[0].__name__, role[1]))
    found, schemas = models_json_schema(ordered, ref_template="#/components/schemas/{model}")
    refs = {(model, mode): found[model, mode] for model, mode in ordered}
    paths: dict[str, Schema] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, refs)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Ephemeral sandboxd",
            "version": version.VERSION,
            "description": "Sandboxes that stand ready before the code exists.",
        },
        "paths": paths,
        "components": {
            "schemas": _portable(schemas["$defs"]),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "The file `token` of the state directory"}
            },
        },
    }


def _operation(route: Route, refs: dict[Role, Schema]) -> Schema:
    operation: Schema = {"summary": route.summary, "operationId": _operation_id(route)}
    if parameters := [*_path_parameters(route), *_query_parameters(route)]:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = {
            "required": get_origin(route.body) is list or (route.body is not bytes and needs_body(route.body)),
            "content": {RAW if route.body is bytes else "application/json": {"schema": _schema(route.body, "validation", refs)}},
        }
    if route.answer is None:
        answers: Schema = {"204": {"description": "Done"}}
    else:
        media = "text/plain" if route.answer is str else route.media
        content = {media: {"schema": _schema(route.answer, "serialization", refs)}} | {other: {"schema": {"type": "string"}} for other in route.also}
        answers = {"200": {"description": route.summary, "content": content}}
    problem = {"application/problem+json": {"schema": refs[wire.Problem, "serialization"]}}
    for status in sorted(_problems(route)):
        answers[str(status)] = {"description": WRONG.get(status, HTTPStatus(status).phrase), "content": problem}
    if "429" in answers:
        answers["429"]["headers"] = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer", "minimum": 1}}}
    answers["default"] = {"description": "A defect of ours; `id` finds it in the log", "content": problem}
    operation["responses"] = answers
    operation["security"] = [{"token": []}] if route.token else []
    return operation


def _path_parameters(route: Route) -> list[Schema]:
    found = {name: PATH[name] for name in re.findall(r"{(\w+)}", route.path)}
    if route.path.startswith("/v1/sessions/{id}"):
        found["id"] = SESSION
    return [{"name": name, "in": "path", "required": True, "schema": schema} for name, schema in found.items()]


def _query_parameters(route: Route) -> list[Schema]:
    """Which file has to be said; which directory does not."""
    return [{"name": name, "in": "query", "required": name == "path" and route.path.endswith("/content"), **QUERY[name]} for name in route.query]


def _problems(route: Route) -> set[int]:
    """What the route itself tells of what can go wrong."""
    found = {421, *route.problems}
    if route.token:
        found |= {401, 403}
    if "{" in route.path:
        found |= {400, 404, 422}
    if route.query:
        found |= {400, 422}
    if route.body is not None:
        found |= {400, 413} if route.body is bytes else {400, 413, 415, 422}
    return found


def _portable(schema: Any) -> Any:
    """Patterns as JSON Schema reads them: which characters are white is not the same to its regular expressions and to ours."""
    if isinstance(schema, dict):
        return {key: value.replace(r"\s", WHITE) if key == "pattern" and isinstance(value, str) else _portable(value) for key, value in schema.items()}
    return [_portable(item) for item in schema] if isinstance(schema, list) else schema


def _operation_id(route: Route) -> str:
    return route.method.lower() + re.sub(r"\W+", "_", route.path.removeprefix("/v1")).rstrip("_")


def _models(kind: Any) -> list[type[BaseModel]]:
    if get_origin(kind) is list:
        return list(get_args(kind))
    return [kind] if isinstance(kind, type) and issubclass(kind, BaseModel) else []


def _schema(kind: Any, role: Literal["validation", "serialization"], refs: dict[Role, Schema]) -> Schema:
    models = _models(kind)
    if not models:
        return {str: {"type": "string"}, bytes: {"type": "string", "format": "binary"}}.get(kind, {"type": "object"})
    if get_origin(kind) is list:
        return {"type": "array", "items": refs[models[0], role]}
    return refs[models[0], role]
