"""GET /v1/openapi.json: written from the same table that the router is made of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
import orjson

import claudemesh
from claudemesh.daemon.api.core import CoreLike
from claudemesh.daemon.api.errors import Reply
from claudemesh.daemon.api.query import Parameter
from claudemesh.daemon.api.routes import HeaderField, Operation, Request
from claudemesh.daemon.api.schemas import Error

_ALWAYS = (400, 403, 429, 500, 503)
_WITH_BODY = (408, 413, 415)
_PATH_VALUE = re.compile(r"{(\w+)}")


def described(operations: Sequence[Operation]) -> tuple[Operation, ...]:
    """Return the operations and one more, which answers with the description of them all."""
    written: list[bytes] = []

    async def openapi(core: CoreLike, request: Request) -> Reply:
        return Reply(200, written[0])

    own = Operation("GET", "/v1/openapi.json", "This description", {200: None}, openapi)
    everything = (*operations, own)
    written.append(orjson.dumps(document(everything)))
    return everything


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of these operations."""
    types = list(dict.fromkeys([Error, *_types(operations)]))
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    references = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        described = _operation(operation, references)
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "claudemesh daemon",
            "version": claudemesh.__version__,
            "description": "The local API of one host's daemon, on its unix socket.",
        },
        "servers": [{"url": "http://localhost"}],
        "paths": paths,
        "components": {"schemas": components},
    }


def _types(operations: Iterable[Operation]) -> Iterable[type]:
    for operation in operations:
        if operation.body is not None:
            yield operation.body
        yield from (kind for kind in operation.answers.values() if kind is not None)


def _operation(operation: Operation, references: Mapping[type, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{operation.method.lower()} {operation.path[4:]}").strip("_"),
        "summary": operation.summary,
        "parameters": [
            *map(_path_value, _PATH_VALUE.findall(operation.path)),
            *map(_query, operation.query),
            *map(_header, operation.headers),
        ],
        "responses": _responses(operation, references),
    }
    if operation.body is not None:
        described["requestBody"] = {
            "required": operation.body_required,
            "content": {"application/json": {"schema": references[operation.body]}},
        }
    return described


def _responses(operation: Operation, references: Mapping[type, Any]) -> dict[str, Any]:
    errors = {*_ALWAYS, *operation.errors, *(_WITH_BODY if operation.body is not None else ())}
    responses = {status: _answer(status, "application/json", references[Error]) for status in errors}
    for status, kind in operation.answers.items():
        schema = {} if kind is None else references[kind]
        responses[status] = _answer(status, operation.content_type, schema)
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
