"""The OpenAPI 3.1 document, made from the table of routes and the wire models."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterable
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from ephemeral import wire
from ephemeral_sandboxd.api.handlers import MAX_PAGE
from ephemeral_sandboxd.api.routes import Route

Role = tuple[type[BaseModel], Literal["validation", "serialization"]]
Schema = dict[str, Any]

QUERY: dict[str, Schema] = {
    "limit": {"schema": {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": 100}, "description": "Rows a page"},
    "before": {"schema": {"type": "string"}, "description": "`next` of the page before"},
    "session": {"schema": {"type": "string"}, "description": "Only those of this session"},
}
PATH: dict[str, Schema] = {"id": {"type": "string"}, "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"}}


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
            "version": importlib.metadata.version("ephemeral-sidecar"),
            "description": "Sandboxes that stand ready before the code exists.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "The file `token` of the state directory"}
            },
        },
    }


def _operation(route: Route, refs: dict[Role, Schema]) -> Schema:
    operation: Schema = {"summary": route.summary, "operationId": _operation_id(route)}
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": PATH[name]} for name in re.findall(r"{(\w+)}", route.path)
    ]
    parameters += [{"name": name, "in": "query", "required": False, **QUERY[name]} for name in route.query]
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _schema(route.body, "validation", refs)}},
        }
    if route.answer is None:
        answers: Schema = {"204": {"description": "Done"}}
    else:
        media = "text/plain" if route.answer is str else route.media
        answers = {
            "200": {
                "description": route.summary,
                "content": {media: {"schema": _schema(route.answer, "serialization", refs)}},
            }
        }
    problem = {"schema": refs[wire.Problem, "serialization"]}
    answers["default"] = {"description": "What went wrong", "content": {"application/problem+json": problem}}
    operation["responses"] = answers
    operation["security"] = [{"token": []}] if route.token else []
    return operation


def _operation_id(route: Route) -> str:
    return route.method.lower() + re.sub(r"\W+", "_", route.path.removeprefix("/v1")).rstrip("_")


def _models(kind: Any) -> list[type[BaseModel]]:
    if get_origin(kind) is list:
        return list(get_args(kind))
    return [kind] if isinstance(kind, type) and issubclass(kind, BaseModel) else []


def _schema(kind: Any, role: Literal["validation", "serialization"], refs: dict[Role, Schema]) -> Schema:
    models = _models(kind)
    if not models:
        return {"type": "string"} if kind is str else {"type": "object"}
    if get_origin(kind) is list:
        return {"type": "array", "items": refs[models[0], role]}
    return refs[models[0], role]
