"""Inbox routes. Reading does not consume messages: a reader marks them as shown or acked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from claudemesh.daemon.api.parameters import member, row_key, session, topic
from claudemesh.daemon.api.schemas import AckBody, InboxItem, InboxPage, Marked
from claudemesh.daemon.inbox.selection import HostMessages, Selection
from claudemesh.daemon.inbox.store import InboxStore
from claudemesh.daemon.sessions.service import Page, Sessions
from claudemesh.daemon.sessions.trust import SenderTrust
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.web.errors import HttpRefusal
from claudemesh.runtime.web.paging import page, page_limit
from claudemesh.runtime.web.query import flag, moment, number_cursor, page_order
from claudemesh.runtime.web.replies import Reply
from claudemesh.runtime.web.routes import Request, Route


class InboxRoutes(Struct, frozen=True, kw_only=True):
    """Handlers of /v1/inbox (docs/spec/daemon.md, Local API)."""

    store: InboxStore
    sessions: Sessions
    trust: SenderTrust
    clock: Clock
    # Returns a message with its whole text.
    whole: Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]

    async def list_messages(self, request: Request) -> Reply:
        """Return received messages in the requested order."""
        query, session = request.query, request.query["session"]
        chosen = Selection(
            since_ms=query["since"],
            topic=query["topic"],
            sender=query["from"],
            unread=query["unread"],
            mentioned=query["mentioned"],
            sealed=query["sealed"],
            unseen=query["unseen"],
            session=query["session"],
            without=() if session is None else self.trust.muted(),
            newest_first=query["order"] == "desc",
        )

        async def fetch(limit: int, after: str | None) -> tuple[Sequence[Mapping[str, Any]], str | None]:
            seq = None if after is None else int(after)
            if session is None:
                return await self.store.page(chosen, after=seq, limit=limit)

            def read(name: str, host: HostMessages) -> Awaitable[Page]:
                return self.store.page(replace(chosen, host=host), after=seq, limit=limit)

            return await self.sessions.list_for(session, read)

        reset = await self._is_past_the_end(query["after"], query["order"])
        return await page(request, fetch, lambda item: str(item["seq"]), query["limit"], reset=reset)

    async def get_message(self, request: Request) -> Reply:
        """Return one message by its seq or any of its ids."""
        item = await self.store.get(row_key(request))
        if item is None:
            raise HttpRefusal(404, "not_found", "The inbox holds no message with this id.")
        return Reply(200, await self.whole(item))

    async def acknowledge(self, request: Request) -> Reply:
        """Mark messages as notified, shown or acked; the time of the first mark is kept."""
        body: AckBody = request.body
        marked = await self.store.mark(body.ids, body.as_, self.clock.wall_ms(), body.session)
        return Reply(200, {"marked": marked})

    async def _is_past_the_end(self, after: str | None, order: str) -> bool:
        """Whether a cursor is greater than every seq given so far, so that it comes from another inbox.

        The inbox was then recreated or restored from a backup. Nothing would be found behind the cursor for a
        long time, so the list begins with the oldest message and says so.
        """
        if after is None or order == "desc":
            return False
        return int(after) > await self.store.position()


ROUTES = (
    Route(
        "GET",
        "/v1/inbox",
        "List received messages, oldest first, or newest first with order=desc",
        {200: InboxPage},
        InboxRoutes.list_messages,
        query=(
            moment("since"),
            number_cursor(),
            topic("topic"),
            member("from"),
            flag("unread"),
            flag("unseen"),
            flag("mentioned"),
            flag("sealed"),
            session("session"),
            page_order(),
            page_limit(),
        ),
        errors=(404, 507),
        # With a session, its messages count as given.
        acts=True,
    ),
    Route(
        "POST",
        "/v1/inbox/ack",
        "Mark messages as notified, shown or acked",
        {200: Marked},
        InboxRoutes.acknowledge,
        body=AckBody,
        errors=(507,),
    ),
    Route(
        "GET",
        "/v1/inbox/{id}",
        "Get one message",
        {200: InboxItem},
        InboxRoutes.get_message,
        errors=(404,),
        # A long text is fetched.
        acts=True,
    ),
)
