"""Outbox routes: list sends, get one with its states, and for an operator requeue, drop, prune payloads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from claudemesh.daemon.api.failures import answered
from claudemesh.daemon.api.parameters import row_key
from claudemesh.daemon.api.schemas import Conflict, EmptyBody
from claudemesh.daemon.api.schemas_outbox import (
    Dropped,
    OutboxPage,
    OutboxRow,
    Pruned,
    RequeueBody,
    Requeued,
)
from claudemesh.daemon.outbox.callers import WaitingCallers
from claudemesh.daemon.outbox.states import Answer, Status
from claudemesh.daemon.outbox.store import OutboxStore
from claudemesh.daemon.receipts.progress import (
    WAITED_FOR,
    counts_of,
    has_reached,
    sentence,
    state_of,
)
from claudemesh.daemon.receipts.taking import states_of
from claudemesh.runtime.clock import iso_ms
from claudemesh.runtime.web.errors import HttpRefusal
from claudemesh.runtime.web.paging import page, page_limit
from claudemesh.runtime.web.query import choice, number_cursor, page_order, whole_number
from claudemesh.runtime.web.replies import Reply
from claudemesh.runtime.web.routes import Request, Route

_TIMES = ("enqueued_at", "delivered_at", "aborted_at")
_OPERATOR = "operator"
_PRUNE_BATCH = 500
_LONGEST_WAIT_MS = 30_000
# Recipients of a send that are listed with their states.
_RECIPIENTS = 500


class Recovery(Protocol):
    """Recovery of sends that are dead or stuck (docs/spec/daemon.md, Recovery by the operator)."""

    async def requeue(
        self, key: str, *, new_client_message_id: str | None, patch: Mapping[str, Any] | None
    ) -> Answer:
        """Send a row's message again under a new id, as it was or patched."""
        ...

    async def drop(self, key: str, by: str) -> Answer:
        """Abort a row for good; `by` is noted in it."""
        ...


class OutboxRoutes(Struct, frozen=True, kw_only=True):
    """Handlers of /v1/outbox. `wall_of` converts lived milliseconds into Unix milliseconds for display.

    `absence` gets the key of a member, and whether a session is to show the message. It returns a clause that
    says that the host is offline or shows no session, or None. `fate_of_file` gets the client_message_id of a
    send without a row, and returns what became of its file, or None.
    """

    store: OutboxStore
    recovery: Recovery
    wall_of: Callable[[int], int]
    watchers: WaitingCallers
    absence: Callable[[str, bool], Awaitable[str | None]]
    fate_of_file: Callable[[str], Awaitable[Mapping[str, Any] | None]]

    async def list_rows(self, request: Request) -> Reply:
        """Return sends of one status or of all, in the requested order."""
        query = request.query
        status = None if query["status"] is None else Status(query["status"])
        newest_first = query["order"] == "desc"

        async def fetch(limit: int, after: str | None) -> tuple[Sequence[Mapping[str, Any]], str | None]:
            rows, following = await self.store.page(status, limit, after, newest_first=newest_first)
            return [self._item(row) for row in rows], following

        return await page(request, fetch, None, query["limit"])

    async def get_row(self, request: Request) -> Reply:
        """Return one send by its id or client_message_id, its states, and the chain of sends that replaced
        it. With `wait_ms`, wait for the state `wait_for`, and answer earlier when the state changes."""
        key, query = row_key(request), request.query
        found = await self._progress(key)
        if query["wait_ms"] and not has_reached(found["state"], query["wait_for"] or WAITED_FOR[0]):
            changed = self.watchers.add(found["client_message_id"])
            try:
                # Read again: the state may have changed before the wait began.
                before, found = found["state"], await self._progress(key)
                if found["state"] == before:
                    await asyncio.wait([changed], timeout=query["wait_ms"] / 1000)
                    found = await self._progress(key)
            finally:
                self.watchers.remove(found["client_message_id"], changed)
        return Reply(200, found)

    async def _progress(self, key: str) -> dict[str, Any]:
        row = await self.store.get(key)
        if row is None:
            raise await self._not_found(key)
        told = await self.store.receipts.of(row["id"], _RECIPIENTS)
        state, item = state_of(row, told), self._item(row)
        recipient = item.get("destination_ref") if item.get("destination_kind") == "dm" else None
        needs_session = row["receipt"] in ("shown", "acked")
        absence = None if recipient is None else await self.absence(recipient, needs_session)
        return {
            **item,
            "state": state,
            "detail": sentence(row, state, told, absence),
            "counts": counts_of(told),
            "recipients": [
                {"member_id": one.member_id, "name": one.name, **states_of(one.receipt)}
                for one in told.recipients
            ],
            "chain": [self._item(later) for later in row["chain"]],
        }

    async def _not_found(self, key: str) -> HttpRefusal:
        fate = await self.fate_of_file(key)
        if fate is None:
            text = "The outbox holds no send with this id."
            return HttpRefusal(404, "not_found", text, next="claudemesh daemon outbox list")
        text = f"The outbox holds no send with this id: {fate['detail']}"
        return HttpRefusal(404, "not_found", f"{text.rstrip('.')}.", **fate)

    async def requeue(self, request: Request) -> Reply:
        """Send the message of a dead or pending row again under a new id, as it was or patched."""
        body: RequeueBody = request.body
        answer = await self.recovery.requeue(
            row_key(request), new_client_message_id=body.new_client_message_id, patch=body.patch
        )
        return answered(answer)

    async def drop(self, request: Request) -> Reply:
        """Abort a dead or pending row."""
        return answered(await self.recovery.drop(row_key(request), _OPERATOR))

    async def prune(self, request: Request) -> Reply:
        """Delete the payloads of finished rows. Their ids stay taken, and retries are answered as before."""
        rows = freed = 0
        while True:
            count, size = await self.store.prune(_PRUNE_BATCH)
            rows, freed = rows + count, freed + size
            if not count:
                return Reply(200, {"pruned": rows, "freed_bytes": freed})

    def _item(self, row: Mapping[str, Any]) -> dict[str, Any]:
        item = {name: value for name, value in row.items() if name != "due_lived_ms"}
        item |= {name: None if row[name] is None else iso_ms(row[name]) for name in _TIMES}
        # A row that waits for a key is tried when the key comes.
        waits = row["status"] == Status.PENDING and row["due_lived_ms"] and row["waiting_for"] is None
        item["next_attempt_at"] = iso_ms(self.wall_of(row["due_lived_ms"])) if waits else None
        return item


ROUTES = (
    Route(
        "POST",
        "/v1/outbox/prune",
        "Delete the payloads of finished sends",
        {200: Pruned},
        OutboxRoutes.prune,
        body=EmptyBody,
        body_required=False,
        errors=(507,),
    ),
    Route(
        "GET",
        "/v1/outbox",
        "List sends, oldest first, or newest first with order=desc",
        {200: OutboxPage},
        OutboxRoutes.list_rows,
        query=(
            choice("status", [status.value for status in Status]),
            page_order(),
            page_limit(),
            number_cursor(),
        ),
    ),
    Route(
        "GET",
        "/v1/outbox/{id}",
        "Get one send, its states, and the chain of sends that replaced it",
        {200: OutboxRow},
        OutboxRoutes.get_row,
        query=(choice("wait_for", list(WAITED_FOR)), whole_number("wait_ms", 0, _LONGEST_WAIT_MS)),
        errors=(404,),
    ),
    Route(
        "POST",
        "/v1/outbox/{id}/requeue",
        "Send a dead or pending message again under a new id",
        {200: Requeued, 409: Conflict},
        OutboxRoutes.requeue,
        body=RequeueBody,
        body_required=False,
        errors=(404, 422, 507),
    ),
    Route(
        "POST",
        "/v1/outbox/{id}/drop",
        "Abort a dead or pending send for good",
        {200: Dropped, 409: Conflict},
        OutboxRoutes.drop,
        body=EmptyBody,
        body_required=False,
        errors=(404, 507),
    ),
)
