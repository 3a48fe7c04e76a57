"""The inbox: reading does not consume, a reader says what it has shown or is done with (daemon.md, Inbox)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from claudemesh.daemon.api.core import CoreLike
from claudemesh.daemon.api.errors import Reply
from claudemesh.daemon.api.paging import page
from claudemesh.daemon.api.query import flag, member, moment, number_cursor, page_limit, topic
from claudemesh.daemon.api.routes import Operation, Request
from claudemesh.daemon.api.schemas import AckBody, InboxPage, Marked


async def list_messages(core: CoreLike, request: Request) -> Reply:
    """Messages received, oldest first."""
    query = request.query

    async def fetch(limit: int, after: str | None) -> tuple[Sequence[Mapping[str, Any]], str | None]:
        return await core.inbox.page(
            since_ms=query["since"],
            after=None if after is None else int(after),
            topic=query["topic"],
            sender=query["from"],
            unread=query["unread"],
            limit=limit,
        )

    return await page(request, fetch, lambda item: str(item["seq"]), query["limit"])


async def acknowledge(core: CoreLike, request: Request) -> Reply:
    """Note that messages were shown, or are done with; the first time counts."""
    body: AckBody = request.body
    return Reply(200, {"marked": await core.inbox.mark(body.ids, body.as_, core.clock.wall_ms())})


OPERATIONS = (
    Operation(
        "GET",
        "/v1/inbox",
        "List messages received, oldest first",
        {200: InboxPage},
        list_messages,
        query=(
            moment("since"),
            number_cursor(),
            topic("topic"),
            member("from"),
            flag("unread"),
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
)
