"""GET /v1/openapi.json: the OpenAPI document, generated from the table of routes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
import orjson

import claudemesh
from claudemesh.daemon.api.schemas import Error
from claudemesh.runtime.web.query import Parameter
from claudemesh.runtime.web.replies import Reply
from claudemesh.runtime.web.routes import HeaderField, Request, Route

_ALWAYS = (400, 403, 429, 500, 503)
_WITH_BODY = (408, 413, 415)
_PATH_VALUE = re.compile(r"{(\w+)}")


def description_of(routes: Sequence[Route]) -> Route:
    """Return the route whose reply describes these routes and itself.

    The description is made at the first request: it takes time at a start, and memory that few daemons need.
    """
    written: list[bytes] = []

    async def openapi(owner: object, request: Request) -> Reply:
        if not written:
            written.append(await asyncio.to_thread(lambda: orjson.dumps(document((*routes, own)))))
        return Reply(200, written[0])

    own = Route("GET", "/v1/openapi.json", "The OpenAPI description of this API", {200: None}, openapi)
    return own


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of these routes."""
    types = list(dict.fromkeys([Error, *_types(routes)]))
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    references = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, references)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "claudemesh daemon",
            "version": claudemesh.__version__,
            "description": "The local API of one host's daemon, on its unix socket.",
        },
        "servers": [{"url": "http://localhost"}],
        "paths": paths,
        "components": {"schemas": {name: _spelled_out(schema) for name, schema in components.items()}},
    }


def _spelled_out(schema: Any) -> Any:
    """Return a schema as generators of clients read it.

    They take a field with a default for one that is always there, and an object without a word on its fields
    for an empty one.
    """
    if isinstance(schema, list):
        return [_spelled_out(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {
        name: _spelled_out(each) for name, each in schema.items() if not (name == "default" and each is None)
    }
    if found.get("type") == "object" and not found.keys() & {"properties", "additionalProperties"}:
        found["additionalProperties"] = True
    return found


def _types(routes: Iterable[Route]) -> Iterable[type]:
    for route in routes:
        if route.body is not None:
            yield route.body
        yield from (kind for kind in route.answers.values() if kind is not None)


def _operation(route: Route, references: Mapping[type, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{route.method.lower()} {route.path[4:]}").strip("_"),
        "summary": route.summary,
        "parameters": [
            *map(_path_value, _PATH_VALUE.findall(route.path)),
            *map(_query, route.query or ()),
            *map(_header, route.headers),
        ],
        "responses": _responses(route, references),
    }
    if route.body is not None:
        described["requestBody"] = {
            "required": route.body_required,
            "content": {"application/json": {"schema": references[route.body]}},
        }
    return described


def _responses(route: Route, references: Mapping[type, Any]) -> dict[str, Any]:
    errors = {*_ALWAYS, *route.errors, *(_WITH_BODY if route.body is not None else ())}
    responses = {status: _answer(status, "application/json", references[Error]) for status in errors}
    for status, kind in route.answers.items():
        schema = {} if kind is None else references[kind]
        responses[status] = _answer(status, route.content_type, schema)
    return {str(status): responses[status] for status in sorted(responses)}


def _answer(status: int, content_type: str, schema: Any) -> dict[str, Any]:
    return {"description": HTTPStatus(status).phrase, "content": {content_type: {"schema": schema}}}


def _path_value(name: str) -> dict[str, Any]:
    schema = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _query(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": "query",
        "required": False,
        "description": parameter.takes,
        "schema": parameter.schema,
    }


def _header(header: HeaderField) -> dict[str, Any]:
    return {
        "name": header.name,
        "in": "header",
        "required": False,
        "description": header.text,
        "schema": header.schema,
    }
