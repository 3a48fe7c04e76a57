"""Routes for sends: bare ASGI apps ahead of the other routes, as they are the hot path."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from msgspec import Struct

from claudemesh.daemon.api.failures import answered
from claudemesh.daemon.api.hook_auth import GRANT
from claudemesh.daemon.api.schemas import (
    MAX_BATCH,
    Accepted,
    Batch,
    BatchBody,
    Conflict,
    Done,
    PostBody,
    SendBody,
)
from claudemesh.daemon.outbox.request import SendRequest, parse_post, parse_send
from claudemesh.daemon.outbox.submitting import Submit
from claudemesh.protocol.errors import InvalidField
from claudemesh.protocol.traceparent import TRACEPARENT
from claudemesh.runtime import aside
from claudemesh.runtime.services import TaskOwner
from claudemesh.runtime.web.asgi import App, Receive, Scope, Send
from claudemesh.runtime.web.bodies import parse_object, read_body
from claudemesh.runtime.web.dispatch import serve
from claudemesh.runtime.web.errors import method_not_allowed
from claudemesh.runtime.web.query import parse_query, whole_number
from claudemesh.runtime.web.replies import Reply
from claudemesh.runtime.web.routes import HeaderField, Route, ServeOptions

_LONGEST_WAIT_MS = 30_000

Parse: TypeAlias = Callable[[Mapping[str, Any], str | None, str | None], SendRequest]

_QUERY = (whole_number("wait_ms", 0, _LONGEST_WAIT_MS),)
_IDEMPOTENCY_KEY = b"idempotency-key"
_TRACEPARENT = TRACEPARENT.encode()


class SendRoutes(Struct, frozen=True, kw_only=True):
    """Parts that the routes for sends use."""

    submit: Submit


class SendRoute:
    """One route that submits a send and answers once its row is on disk, or once it is refused."""

    def __init__(self, submit: Submit, parse: Parse, options: ServeOptions) -> None:
        self._submit = submit
        self._parse = parse
        self._options = options

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer one HTTP request."""
        return serve(self._reply(scope, receive), send, self._options)

    async def _reply(self, scope: Scope, receive: Receive) -> Reply:
        if scope["method"] != "POST":
            raise method_not_allowed(["POST"])
        query = scope["query_string"]
        wait_ms = parse_query(query, _QUERY)["wait_ms"] if query else None
        key, traceparent = _read_headers(scope["headers"])
        raw = await read_body(receive, self._options.body_bytes, self._options.body_deadline_s)
        request = await aside.run(aside.weight_of(raw), self._request, raw, key, traceparent)
        grant = scope.get(GRANT)
        if grant is not None:
            request = grant.admit(request)
        return answered(await self._submit(request, wait_ms=wait_ms))

    def _request(self, raw: bytes, key: str | None, traceparent: str | None) -> SendRequest:
        return self._parse(parse_object(raw), key, traceparent)


class BatchRoute:
    """The route that submits several sends, and answers when each is on disk or refused.

    They wait for the disk together, in the order of the list.
    """

    def __init__(self, submit: Submit, options: ServeOptions) -> None:
        self._submit = submit
        self._options = options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        await serve(self._reply(scope, receive), send, self._options)

    async def _reply(self, scope: Scope, receive: Receive) -> Reply:
        if scope["method"] != "POST":
            raise method_not_allowed(["POST"])
        raw = await read_body(receive, self._options.body_bytes, self._options.body_deadline_s)
        items = await aside.run(aside.weight_of(raw), _batch, raw)
        owner, tasks = TaskOwner(), []
        try:
            for item in items:
                queued = asyncio.Event()
                tasks.append(owner.start(self._one(item, queued.set), "batch"))
                # The next one begins when this one cannot be overtaken any more.
                await queued.wait()
            replies = [await task for task in tasks]
        finally:
            await owner.stop()
        return Reply(200, {"items": [{"http_status": status, **body} for status, body in replies]})

    async def _one(self, item: object, on_queued: Callable[[], None]) -> tuple[int, Mapping[str, Any]]:
        try:
            if not isinstance(item, dict):
                raise InvalidField(
                    "invalid_field", "items", "An item must be a JSON object, as for /v1/send."
                )
            answer = await self._submit(parse_send(item), on_queued=on_queued)
        except Exception as error:
            reply = self._options.reply_to(error)
            return reply.status, reply.body if isinstance(reply.body, Mapping) else {}
        finally:
            on_queued()
        return answer.status, answer.body


def _batch(raw: bytes) -> list[object]:
    """Return the items of a batch, as they came."""
    body = parse_object(raw)
    unknown = min(body.keys() - {"items"}, default=None)
    if unknown is not None:
        raise InvalidField("unknown_field", unknown[:64], "There is no such field here; the field is items.")
    items = body.get("items")
    if not isinstance(items, list) or not 1 <= len(items) <= MAX_BATCH:
        text = f"items must be a list of 1 to {MAX_BATCH} sends."
        raise InvalidField("invalid_field", "items", text)
    return items


def _read_headers(headers: list[tuple[bytes, bytes]]) -> tuple[str | None, str | None]:
    """Return the headers `Idempotency-Key`, which takes precedence over the body's id, and `traceparent`.

    See docs/spec/daemon.md, POST /v1/send.
    """
    found = traceparent = None
    for name, value in headers:
        if name == _IDEMPOTENCY_KEY:
            if found is not None:
                raise InvalidField("duplicate_header", "Idempotency-Key", "Give Idempotency-Key once.")
            # Characters that are not visible ASCII are kept, so that the check of the id refuses them.
            found = value.decode("latin-1")
        elif name == _TRACEPARENT:
            # Of several none is valid, as the standard has it.
            traceparent = value.decode("latin-1") if traceparent is None else ""
    return found, traceparent


def _build_send(group: SendRoutes, options: ServeOptions) -> App:
    return SendRoute(group.submit, parse_send, options)


def _build_post(group: SendRoutes, options: ServeOptions) -> App:
    return SendRoute(group.submit, parse_post, options)


def _build_batch(group: SendRoutes, options: ServeOptions) -> App:
    return BatchRoute(group.submit, options)


_ANSWERS = {200: Done, 202: Accepted, 409: Conflict}
_ERRORS = (403, 404, 429, 503, 507)
_HEADERS = (
    HeaderField(
        "Idempotency-Key",
        {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
        "The client_message_id. It takes precedence over the one in the body.",
    ),
    HeaderField(
        "traceparent",
        {"type": "string", "maxLength": 255},
        "The position in a trace (W3C Trace Context). It travels sealed; an invalid one is ignored.",
    ),
)

ROUTES = (
    Route(
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
    Route(
        "POST",
        "/v1/send/batch",
        "Send messages that wait for the disk together, in their order; each has an answer of its own",
        {200: Batch},
        build=_build_batch,
        body=BatchBody,
    ),
    Route(
        "POST",
        "/v1/topic/post",
        "Send a message to every subscriber of a topic",
        _ANSWERS,
        build=_build_post,
        query=_QUERY,
        headers=_HEADERS,
        body=PostBody,
        errors=_ERRORS,
        for_hooks=True,
    ),
)
