"""POST /v1/send and /v1/topic/post: bare ASGI, ahead of the router, because everything waits for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from claudemesh.daemon.api.body import parse_object
from claudemesh.daemon.api.core import CoreLike
from claudemesh.daemon.api.errors import Reply, answered, method_not_allowed
from claudemesh.daemon.api.hooked import GRANT
from claudemesh.daemon.api.query import parse_query, whole_number
from claudemesh.daemon.api.routes import HeaderField, Operation, serve
from claudemesh.daemon.api.schemas import Accepted, Conflict, Done, PostBody, SendBody
from claudemesh.daemon.api.wire import body_of
from claudemesh.daemon.outbox.request import SendRequest, parse_post, parse_send
from claudemesh.protocol.errors import InvalidField
from claudemesh.runtime import aside
from claudemesh.runtime.http import App, Receive, Scope, Send

MAX_WAIT_MS = 30_000

Parse: TypeAlias = Callable[[Mapping[str, Any], str | None], SendRequest]

_QUERY = (whole_number("wait_ms", 0, MAX_WAIT_MS),)
_IDEMPOTENCY_KEY = b"idempotency-key"


class SendRoute:
    """Takes a send to the core. Its answer is given once the row is on the disk, or is refused."""

    def __init__(self, core: CoreLike, parse: Parse) -> None:
        self._core = core
        self._parse = parse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, whatever it is."""
        await serve(self._reply(scope, receive), send)

    async def _reply(self, scope: Scope, receive: Receive) -> Reply:
        if scope["method"] != "POST":
            raise method_not_allowed(["POST"])
        query = scope["query_string"]
        wait_ms = parse_query(query, _QUERY)["wait_ms"] if query else None
        key = _idempotency_key(scope["headers"])
        raw = await body_of(receive)
        request = await aside.run(aside.weight_of(raw), self._request, raw, key)
        grant = scope.get(GRANT)
        if grant is not None:
            request = grant.admit(request)
        return answered(await self._core.submit(request, wait_ms=wait_ms))

    def _request(self, raw: bytes, key: str | None) -> SendRequest:
        return self._parse(parse_object(raw), key)


def _idempotency_key(headers: list[tuple[bytes, bytes]]) -> str | None:
    """Return the header's value as it is; it wins over the body's id (daemon.md, POST /v1/send)."""
    found = None
    for name, value in headers:
        if name == _IDEMPOTENCY_KEY:
            if found is not None:
                raise InvalidField("duplicate_header", "Idempotency-Key", "Give Idempotency-Key once.")
            # What is no visible ASCII stays so and is refused as an id.
            found = value.decode("latin-1")
    return found


def _build_send(core: CoreLike) -> App:
    return SendRoute(core, parse_send)


def _build_post(core: CoreLike) -> App:
    return SendRoute(core, parse_post)


_ANSWERS = {200: Done, 202: Accepted, 409: Conflict}
_ERRORS = (403, 404, 429, 503, 507)
_HEADERS = (
    HeaderField(
        "Idempotency-Key",
        {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
        "The client_message_id; it wins over the one in the body.",
    ),
)

OPERATIONS = (
    Operation(
        "POST",
        "/v1/send",
        "Send a message; 202 means that it is on this host's disk",
        _ANSWERS,
        build=_build_send,
        query=_QUERY,
        headers=_HEADERS,
        body=SendBody,
        errors=_ERRORS,
        for_hooks=True,
    ),
    Operation(
        "POST",
        "/v1/topic/post",
        "Send a message to everybody who is subscribed to a topic",
        _ANSWERS,
        build=_build_post,
        query=_QUERY,
        headers=_HEADERS,
        body=PostBody,
        errors=_ERRORS,
        for_hooks=True,
    ),
)
