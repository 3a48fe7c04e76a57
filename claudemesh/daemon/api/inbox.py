"""The inbox: reading does not consume, a reader says what it has shown or is done with (daemon.md, Inbox)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from claudemesh.daemon.api.core import CoreLike
from claudemesh.daemon.api.errors import Refusal, Reply
from claudemesh.daemon.api.paging import page
from claudemesh.daemon.api.query import (
    flag,
    member,
    moment,
    number_cursor,
    page_limit,
    page_order,
    topic,
)
from claudemesh.daemon.api.routes import Operation, Request, row_key
from claudemesh.daemon.api.schemas import AckBody, InboxItem, InboxPage, Marked
from claudemesh.daemon.inbox.selection import Selection


async def list_messages(core: CoreLike, request: Request) -> Reply:
    """Messages received, in the order that was asked for."""
    query = request.query
    chosen = Selection(
        since_ms=query["since"],
        topic=query["topic"],
        sender=query["from"],
        unread=query["unread"],
        mentioned=query["mentioned"],
        newest_first=query["order"] == "desc",
    )

    async def fetch(limit: int, after: str | None) -> tuple[Sequence[Mapping[str, Any]], str | None]:
        return await core.inbox.page(chosen, after=None if after is None else int(after), limit=limit)

    reset = await _is_past_the_end(core, query["after"], query["order"])
    return await page(request, fetch, lambda item: str(item["seq"]), query["limit"], reset=reset)


async def _is_past_the_end(core: CoreLike, after: str | None, order: str) -> bool:
    """Tell whether a cursor lies behind every seq given so far, so that it comes from another inbox.

    The inbox was begun anew or restored from a backup then. Nothing would be found behind such a cursor
    for a long time, so the list begins with the oldest message, and says so.
    """
    if after is None or order == "desc":
        return False
    return int(after) > await core.inbox.position()


async def get_message(core: CoreLike, request: Request) -> Reply:
    """One message by its seq or any of its ids."""
    item = await core.inbox.get(row_key(request))
    if item is None:
        raise Refusal(404, "not_found", "There is no such message; GET /v1/inbox lists them.")
    return Reply(200, item)


async def acknowledge(core: CoreLike, request: Request) -> Reply:
    """Note that messages were shown, or are done with; the first time counts."""
    body: AckBody = request.body
    return Reply(200, {"marked": await core.inbox.mark(body.ids, body.as_, core.clock.wall_ms())})


OPERATIONS = (
    Operation(
        "GET",
        "/v1/inbox",
        "List messages received, oldest first, or newest first with order=desc",
        {200: InboxPage},
        list_messages,
        query=(
            moment("since"),
            number_cursor(),
            topic("topic"),
            member("from"),
            flag("unread"),
            flag("mentioned"),
            page_order(),
            page_limit(),
        ),
    ),
    Operation(
        "POST",
        "/v1/inbox/ack",
        "Say which messages were shown, or are done with",
        {200: Marked},
        acknowledge,
        body=AckBody,
        errors=(507,),
    ),
    Operation(
        "GET",
        "/v1/inbox/{id}",
        "Look at one message",
        {200: InboxItem},
        get_message,
        errors=(404,),
    ),
)
