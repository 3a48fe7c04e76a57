"""The outbox as an operator sees it: list, look at one row, requeue, drop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from claudemesh.daemon.api.core import CoreLike
from claudemesh.daemon.api.errors import Refusal, Reply, answered
from claudemesh.daemon.api.paging import page
from claudemesh.daemon.api.query import choice, number_cursor, page_limit, page_order
from claudemesh.daemon.api.routes import Operation, Request, row_key
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
from claudemesh.runtime.clock import iso_ms

_TIMES = ("enqueued_at", "delivered_at", "aborted_at")
_OPERATOR = "operator"
_PRUNE_BATCH = 500


async def list_rows(core: CoreLike, request: Request) -> Reply:
    """Sends of one status or of any, in the order that was asked for."""
    query = request.query
    status = None if query["status"] is None else Status(query["status"])

    async def fetch(limit: int, after: str | None) -> tuple[Sequence[Mapping[str, Any]], str | None]:
        rows, following = await core.outbox.page(status, limit, after, newest_first=query["order"] == "desc")
        return [_item(core, row) for row in rows], following

    return await page(request, fetch, None, query["limit"])


async def get_row(core: CoreLike, request: Request) -> Reply:
    """One send by its id or client_message_id, and what took its place."""
    row = await core.outbox.get(row_key(request))
    if row is None:
        raise Refusal(404, "not_found", "There is no such row; GET /v1/outbox lists them.")
    return Reply(200, {**_item(core, row), "chain": [_item(core, later) for later in row["chain"]]})


async def requeue(core: CoreLike, request: Request) -> Reply:
    """Send a dead or pending row's message again under a new id, the same or patched."""
    body: RequeueBody = request.body
    answer = await core.requeue(
        row_key(request), new_client_message_id=body.new_client_message_id, patch=body.patch
    )
    return answered(answer)


async def drop(core: CoreLike, request: Request) -> Reply:
    """Retire a dead or pending row."""
    return answered(await core.drop(row_key(request), _OPERATOR))


async def prune(core: CoreLike, request: Request) -> Reply:
    """Drop the payloads of rows that are over. Their ids stay taken, and retries are answered as before."""
    rows = freed = 0
    while True:
        count, size = await core.outbox.prune(_PRUNE_BATCH)
        rows, freed = rows + count, freed + size
        if not count:
            return Reply(200, {"pruned": rows, "freed_bytes": freed})


def _item(core: CoreLike, row: Mapping[str, Any]) -> dict[str, Any]:
    item = {name: value for name, value in row.items() if name != "due_lived_ms"}
    item |= {name: None if row[name] is None else iso_ms(row[name]) for name in _TIMES}
    waits = row["status"] == Status.PENDING and row["due_lived_ms"]
    item["next_attempt_at"] = iso_ms(core.wall_of(row["due_lived_ms"])) if waits else None
    return item


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
        "List sends, oldest first, or newest first with order=desc",
        {200: OutboxPage},
        list_rows,
        query=(
            choice("status", [status.value for status in Status]),
            page_order(),
            page_limit(),
            number_cursor(),
        ),
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
