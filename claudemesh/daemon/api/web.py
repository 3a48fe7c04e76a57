"""What every route shares: bodies, query parameters, answers, and errors as one shape."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from claudemesh.daemon.outbox.states import Answer
from claudemesh.protocol.canonical import parse_json
from claudemesh.protocol.errors import InvalidField, ProtocolError
from claudemesh.runtime.errors import StorageError
from claudemesh.runtime.http import BodyTooLarge, Receive, read_body
from claudemesh.runtime.logs import get_logger

log = get_logger("api")

MAX_BODY = 1 << 20
MAX_PAGE = 500
_DEFAULT_PAGE = 100
MAX_RESPONSE = 10 << 20
_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}

Endpoint = Callable[[Request], Awaitable[Answer]]


def guarded(endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    """Turn a function that returns an `Answer` into a route; every failure becomes one JSON shape."""

    async def route(request: Request) -> Response:
        try:
            return respond(await endpoint(request))
        except Exception as error:
            return respond(answer_error(error))

    return route


def answer_error(error: Exception) -> Answer:
    """Return the answer to an exception; what nobody foresaw is logged and told without details."""
    if isinstance(error, ProtocolError):
        return Answer(error.status, error.as_body())
    if isinstance(error, BodyTooLarge):
        return problem(413, "payload_too_large", f"The body may have {MAX_BODY} bytes.")
    if isinstance(error, StorageError):
        return problem(503, "storage_unavailable", f"The daemon's database did not answer: {error}.")
    log.error("request_failed", error=repr(error), exc_info=error)
    return problem(500, "internal_error", "The daemon failed on this request; its log has the details.")


def problem(status: int, error: str, message: str) -> Answer:
    """Return an error in the one shape that all errors have."""
    return Answer(status, {"error": error, "message": message})


def respond(answer: Answer) -> Response:
    """Return JSON that nothing on the way keeps; a page that goes on says so in `Link`."""
    return Response(orjson.dumps(answer.body), answer.status, headers=_HEADERS, media_type="application/json")


async def read_object(receive: Receive, known: frozenset[str] | None = None) -> dict[str, Any]:
    """Return a request's body as an object with known fields only."""
    body = parse_json(await read_body(receive, MAX_BODY))
    if not isinstance(body, dict):
        raise ProtocolError("invalid_json", "The body must be a JSON object.")
    if known is not None:
        refuse_unknown(body, known)
    return body


def refuse_unknown(given: Mapping[str, Any], known: frozenset[str], what: str = "field") -> None:
    """Raise `InvalidField` for the first name that is not known, with those that are."""
    unknown = sorted(given.keys() - known)
    if unknown:
        allowed = ", ".join(sorted(known)) or "none"
        raise InvalidField(
            f"unknown_{what}", unknown[0][:64], f"There is no such {what}; allowed: {allowed}."
        )


class Query:
    """A request's query parameters, each known, given once, and read by its type."""

    def __init__(self, request: Request, *known: str) -> None:
        items = request.query_params.multi_items()
        self._values = dict(items)
        refuse_unknown(self._values, frozenset(known), "parameter")
        if len(self._values) != len(items):
            raise ProtocolError("duplicate_parameter", "Give each query parameter once.")

    def text(self, name: str) -> str | None:
        """Return a parameter, or None."""
        return self._values.get(name) or None

    def number(self, name: str, low: int, high: int) -> int | None:
        """Return a whole number within bounds, or None; digits only, as `int` takes far more."""
        value = self.text(name)
        if value is None:
            return None
        if not (value.isascii() and value.isdigit() and len(value) < 19 and low <= int(value) <= high):
            raise InvalidField(
                "invalid_parameter", name, f"{name} must be a whole number from {low} to {high}."
            )
        return int(value)

    def limit(self) -> int:
        """Return the page's size, 1 to 500."""
        return self.number("limit", 1, MAX_PAGE) or _DEFAULT_PAGE

    def flag(self, name: str) -> bool:
        """Return a parameter that is true or false."""
        value = self.text(name)
        if value not in (None, "true", "false", "1", "0"):
            raise InvalidField("invalid_parameter", name, f"{name} must be true or false.")
        return value in ("true", "1")


def page(items: list[dict[str, Any]], following: str | None, cursor: str = "") -> Answer:
    """Return a list and the cursor of the next page; cut short where it would pass 10 MiB."""
    size = 0
    for index, item in enumerate(items):
        size += len(orjson.dumps(item))
        if size > MAX_RESPONSE and index:
            return Answer(200, {"items": items[:index], "next": str(items[index - 1][cursor])})
    return Answer(200, {"items": items, "next": following})
