"""HTTP of the broker: bodies read within bounds, errors in one shape, never a traceback."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Any, TypeAlias

import orjson
from starlette.requests import Request
from starlette.responses import Response

from claudemesh.broker.degraded import Degraded
from claudemesh.protocol import InvalidField, ProtocolError, parse_json
from claudemesh.runtime.errors import StorageError
from claudemesh.runtime.web.bodies import ClientGone, read_body
from claudemesh.runtime.web.routes import BODY_DEADLINE_S

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]

_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


class JsonAnswer(Response):
    """A JSON answer that nothing on the way keeps."""

    media_type = "application/json"

    def __init__(self, status: int, content: Mapping[str, Any]) -> None:
        super().__init__(orjson.dumps(content), status_code=status, headers=_HEADERS)


def guarded(endpoint: Endpoint, degraded: Degraded) -> Endpoint:
    """Turn whatever an endpoint raises into its answer: the one place where that happens."""

    @wraps(endpoint)
    async def answered(request: Request) -> Response:
        try:
            return await endpoint(request)
        except ProtocolError as error:
            return refused(error)
        except ClientGone:
            return _failure(400, "incomplete_body", "the body ended early: send it again")
        except StorageError as error:
            degraded.failed("request", error)
            return _failure(503, "storage_unavailable", "the broker's database did not answer: try again")
        except Exception as error:
            degraded.failed("request", error)
            return _failure(500, "internal_error", "the broker failed: its log says why")

    return answered


def refused(error: ProtocolError) -> Response:
    """Answer a refusal, with `Retry-After` when it passes."""
    answer = JsonAnswer(error.status, error.as_body())
    wait_ms = error.fields.get("retry_after_ms")
    if isinstance(wait_ms, int):
        answer.headers["retry-after"] = str(-(-wait_ms // 1000))
    return answer


def not_found() -> Response:
    """Answer for a path that is not served."""
    return _failure(404, "not_found", "there is no such route on a broker")


def wrong_method(allowed: str) -> Response:
    """Answer for a method that a path does not have."""
    answer = _failure(405, "method_not_allowed", f"use {allowed}")
    answer.headers["allow"] = allowed
    return answer


async def read_object(request: Request, limit: int, *known: str) -> Mapping[str, object]:
    """Read a JSON object that has no field but the known ones."""
    raw = await read_body(request.receive, limit=limit, deadline_s=BODY_DEADLINE_S)
    value = parse_json(raw)
    if not isinstance(value, dict):
        raise ProtocolError("invalid_json", "the body must be a JSON object")
    only(value, *known)
    return value


def only(value: Mapping[str, object], *known: str) -> None:
    """Refuse fields that are not known."""
    unknown = sorted(set(value) - set(known))
    if unknown:
        raise InvalidField("unknown_field", printable(unknown[0]), "remove the field that is not known here")


def printable(text: str) -> str:
    """Return a caller's text cut and cleaned, fit for an answer."""
    return "".join(char if char.isprintable() else "?" for char in text[:64])


def _failure(status: int, error: str, message: str) -> Response:
    return JsonAnswer(status, {"error": error, "message": message})
