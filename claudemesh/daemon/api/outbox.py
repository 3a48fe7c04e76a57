"""The outbox as an operator sees it: list, look at one row, requeue, drop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from claudemesh.daemon.api.core import CoreLike
from claudemesh.daemon.api.errors import Refusal, Reply, answered
from claudemesh.daemon.api.paging import page
from claudemesh.daemon.api.query import choice, number_cursor, page_limit
from claudemesh.daemon.api.routes import Operation, Request
from claudemesh.daemon.api.schemas import (
    Conflict,
    Dropped,
    EmptyBody,
    OutboxPage,
    OutboxRow,
    Pruned,
    RequeueBody,
    Requeued,
)
from claudemesh.daemon.outbox.states import Status
from claudemesh.protocol.errors import InvalidField
from claudemesh.protocol.ids import CLIENT_MESSAGE_ID
from claudemesh.runtime.clock import iso_ms

_TIMES = ("enqueued_at", "next_attempt_at", "delivered_at", "aborted_at")
_OPERATOR = "operator"
_PRUNE_BATCH = 500


async def list_rows(core: CoreLike, request: Request) -> Reply:
    """Sends, oldest first, of one status or of any."""
    status = request.query["status"]

    async def fetch(limit: int, after: str | None) -> tuple[Sequence[Mapping[str, Any]], str | None]:
        rows, following = await core.outbox.page(status, limit, after)
        return [_item(row) for row in rows], following

    return await page(request, fetch, None, request.query["limit"])


async def get_row(core: CoreLike, request: Request) -> Reply:
    """One send by its id or client_message_id, and what took its place."""
    row = await core.outbox.get(_key(request))
    if row is None:
        raise Refusal(404, "not_found", "There is no such row; GET /v1/outbox lists them.")
    return Reply(200, {**_item(row), "chain": [_item(successor) for successor in row["chain"]]})


async def requeue(core: CoreLike, request: Request) -> Reply:
    """Send a dead or pending row's message again under a new id, the same or patched."""
    body: RequeueBody = request.body
    answer = await core.requeue(
        _key(request), new_client_message_id=body.new_client_message_id, patch=body.patch
    )
    return answered(answer)


async def drop(core: CoreLike, request: Request) -> Reply:
    """Retire a dead or pending row."""
    return answered(await core.drop(_key(request), _OPERATOR))


async def prune(core: CoreLike, request: Request) -> Reply:
    """Drop the payloads of rows that are over. Their ids stay taken, and retries are answered as before."""
    rows = freed = 0
    while True:
        count, size = await core.outbox.prune(_PRUNE_BATCH)
        rows, freed = rows + count, freed + size
        if not count:
            return Reply(200, {"pruned": rows, "freed_bytes": freed})


def _key(request: Request) -> str:
    key = request.path_values["id"]
    if CLIENT_MESSAGE_ID.fullmatch(key) is None:
        text = "The id is a row's id or its client_message_id: 1 to 255 characters, each from ! to ~."
        raise InvalidField("invalid_parameter", "id", text)
    return key


def _item(row: Mapping[str, Any]) -> dict[str, Any]:
    times = {name: None if row[name] is None else iso_ms(row[name]) for name in _TIMES}
    return {**row, **times}


OPERATIONS = (
    Operation(
        "POST",
        "/v1/outbox/prune",
        "Drop the payloads of sends that are over",
        {200: Pruned},
        prune,
        body=EmptyBody,
        body_required=False,
        errors=(507,),
    ),
    Operation(
        "GET",
        "/v1/outbox",
        "List sends, oldest first",
        {200: OutboxPage},
        list_rows,
        query=(choice("status", [status.value for status in Status]), page_limit(), number_cursor()),
    ),
    Operation(
        "GET",
        "/v1/outbox/{id}",
        "Look at one send and what took its place",
        {200: OutboxRow},
        get_row,
        errors=(404,),
    ),
    Operation(
        "POST",
        "/v1/outbox/{id}/requeue",
        "Send a dead or pending message again under a new id",
        {200: Requeued, 409: Conflict},
        requeue,
        body=RequeueBody,
        body_required=False,
        errors=(404, 422, 507),
    ),
    Operation(
        "POST",
        "/v1/outbox/{id}/drop",
        "Retire a dead or pending send",
        {200: Dropped, 409: Conflict},
        drop,
        body=EmptyBody,
        body_required=False,
        errors=(404, 507),
    ),
)
