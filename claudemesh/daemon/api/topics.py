"""Topics, asked of the broker: all of this is idempotent and needs the link."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from claudemesh.daemon.api.core import CoreLike
from claudemesh.daemon.api.errors import Reply
from claudemesh.daemon.api.paging import Item, listed, page
from claudemesh.daemon.api.query import MAX_PAGE, name_cursor, page_limit
from claudemesh.daemon.api.routes import Operation, Request
from claudemesh.daemon.api.schemas import (
    TopicBody,
    TopicCreateBody,
    TopicCreated,
    TopicPage,
    TopicSubscribed,
)
from claudemesh.daemon.outbox.request import check_topic_or_queue
from claudemesh.protocol import replies
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.replies import TopicEntry
from claudemesh.runtime.clock import iso_ms
from claudemesh.runtime.destinations import QUEUE_MARK


async def create(core: CoreLike, request: Request) -> Reply:
    """Make a topic; 201 when it is new, 200 when it was there."""
    body: TopicCreateBody = request.body
    mode = "queue" if body.mode is None and body.topic.startswith(QUEUE_MARK) else body.mode
    answer = await core.own_topics.create(core.link.call, check_topic_or_queue(body.topic), mode)
    core.topics.created(answer.topic, answer.mode)
    shown = {"topic": answer.topic, "mode": answer.mode, "created": answer.created}
    return Reply(201 if answer.created else 200, shown)


async def subscribe(core: CoreLike, request: Request) -> Reply:
    """Receive what is posted to a topic from now on."""
    return await _set_subscribed(core, request, subscribed=True)


async def unsubscribe(core: CoreLike, request: Request) -> Reply:
    """Receive nothing more of a topic."""
    return await _set_subscribed(core, request, subscribed=False)


async def list_topics(core: CoreLike, request: Request) -> Reply:
    """The mesh's topics, by name."""
    limit = request.query["limit"]
    found = await _behind(core, request.query["after"], limit)
    items = sorted((_item(topic) for topic in found), key=_cursor)
    return await page(request, listed(items, _cursor), _cursor, limit)


async def _behind(core: CoreLike, after: str | None, limit: int) -> Sequence[TopicEntry]:
    """Return more topics behind a name than the limit, or all that there are."""
    found: list[TopicEntry] = []
    params: dict[str, Any] = {} if after is None else {"after": after}
    while True:
        try:
            answer = await core.link.call("topic_list", params, replies.topic_list)
        except ProtocolError as error:
            if error.code != "unknown_field":
                raise
            answer = await core.link.call(
                "topic_list", {}, replies.topic_list
            )  # an older broker: all of them
        found += answer.items
        if answer.next is None or len(found) > limit:
            return found
        params = {"after": answer.next}


async def _set_subscribed(core: CoreLike, request: Request, *, subscribed: bool) -> Reply:
    body: TopicBody = request.body
    topic = check_topic_or_queue(body.topic)
    change = core.own_topics.subscribe if subscribed else core.own_topics.unsubscribe
    await change(core.link.call, topic)
    return Reply(200, {"topic": topic, "subscribed": subscribed})


def _item(entry: TopicEntry) -> dict[str, Any]:
    return {
        "topic": entry.topic,
        "mode": entry.mode,
        "subscribed": entry.subscribed,
        "subscribers": entry.subscribers,
        # protocol.md, Envelope: bodies of topics travel unsealed until topics have keys, and this says so.
        "sealed": False,
        "created_at": None if entry.created_at is None else iso_ms(entry.created_at),
    }


def _cursor(item: Item) -> str:
    name: str = item["topic"]
    return name


_ERRORS = (403, 404, 409, 503)

OPERATIONS = (
    Operation(
        "POST",
        "/v1/topic/create",
        "Make a topic or a queue",
        {200: TopicCreated, 201: TopicCreated},
        create,
        body=TopicCreateBody,
        errors=_ERRORS,
    ),
    Operation(
        "POST",
        "/v1/topic/subscribe",
        "Receive what is posted to a topic",
        {200: TopicSubscribed},
        subscribe,
        body=TopicBody,
        errors=_ERRORS,
    ),
    Operation(
        "POST",
        "/v1/topic/unsubscribe",
        "Receive nothing more of a topic",
        {200: TopicSubscribed},
        unsubscribe,
        body=TopicBody,
        errors=_ERRORS,
    ),
    Operation(
        "GET",
        "/v1/topic/list",
        "List the mesh's topics",
        {200: TopicPage},
        list_topics,
        query=(page_limit(MAX_PAGE), name_cursor()),
        errors=_ERRORS,
    ),
)
