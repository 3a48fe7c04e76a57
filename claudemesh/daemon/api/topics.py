"""Topic routes. Each asks the broker, so it requires the link; each is idempotent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from claudemesh.daemon.api.parameters import name_cursor
from claudemesh.daemon.api.parameters import topic as topic_parameter
from claudemesh.daemon.api.schemas import (
    TopicBody,
    TopicCreateBody,
    TopicCreated,
    TopicDeleteBody,
    TopicDeleted,
    TopicKeyless,
    TopicPage,
    TopicRekeyed,
    TopicSubscribed,
)
from claudemesh.daemon.calls import Ask
from claudemesh.daemon.outbox.request import check_topic_or_queue
from claudemesh.daemon.topics.keys import TopicKeys
from claudemesh.daemon.topics.known import KnownTopics
from claudemesh.daemon.topics.own import OwnTopics
from claudemesh.protocol import replies, topic_key_replies
from claudemesh.protocol.errors import InvalidField, ProtocolError
from claudemesh.protocol.replies import TopicEntry
from claudemesh.runtime.clock import iso_ms
from claudemesh.runtime.destinations import QUEUE_MARK
from claudemesh.runtime.web.paging import MAX_PAGE, Item, listed, page, page_limit
from claudemesh.runtime.web.replies import Reply
from claudemesh.runtime.web.routes import Request, Route


class TopicRoutes(Struct, frozen=True, kw_only=True):
    """Handlers of /v1/topic except posts (send.py). `known` are the topics of the broker's last list."""

    own: OwnTopics
    known: KnownTopics
    keys: TopicKeys
    call: Ask

    async def create(self, request: Request) -> Reply:
        """Create a topic or queue: 201 when it is new, 200 when it exists."""
        body: TopicCreateBody = request.body
        mode = "queue" if body.mode is None and body.topic.startswith(QUEUE_MARK) else body.mode
        answer = await self.own.create(self.call, check_topic_or_queue(body.topic), mode)
        self.known.created(answer.topic, answer.mode)
        shown = {"topic": answer.topic, "mode": answer.mode, "created": answer.created}
        return Reply(201 if answer.created else 200, shown)

    async def subscribe(self, request: Request) -> Reply:
        """Subscribe this member to a topic."""
        body: TopicBody = request.body
        topic = check_topic_or_queue(body.topic)
        try:
            await self.own.subscribe(self.call, topic)
        except ProtocolError as error:
            if error.code != "topic_not_found":
                raise
            # The broker names no others; this daemon knows them.
            raise self.known.missing(topic, is_queue=body.topic.startswith(QUEUE_MARK)) from error
        return Reply(200, {"topic": topic, "subscribed": True})

    async def unsubscribe(self, request: Request) -> Reply:
        """Remove this member's subscription of a topic."""
        body: TopicBody = request.body
        topic = check_topic_or_queue(body.topic)
        await self.own.unsubscribe(self.call, topic)
        return Reply(200, {"topic": topic, "subscribed": False})

    async def delete(self, request: Request) -> Reply:
        """Delete a topic or queue for every member."""
        body: TopicDeleteBody = request.body
        topic = check_topic_or_queue(body.topic)
        try:
            answer = await self.own.delete(self.call, topic, force=body.force)
        except ProtocolError as error:
            if error.code != "topic_not_found":
                raise
            # The broker names no others; this daemon knows them.
            raise self.known.missing(topic, is_queue=body.topic.startswith(QUEUE_MARK)) from error
        self.known.deleted(topic)
        return Reply(200, {"topic": topic, "mode": answer.mode, "dropped": answer.dropped})

    async def rekey(self, request: Request) -> Reply:
        """Ask for the next key of a topic: what is sent from then on needs it."""
        body: TopicBody = request.body
        topic = check_topic_or_queue(body.topic)
        try:
            wanted = await self.call("topic_rekey", {"topic": topic}, topic_key_replies.rekey_noted)
        except ProtocolError as error:
            if error.code != "topic_not_found":
                raise
            raise self.known.missing(topic, is_queue=body.topic.startswith(QUEUE_MARK)) from error
        return Reply(200, {"topic": topic, "rekey_wanted": wanted})

    async def list_topics(self, request: Request) -> Reply:
        """Return the mesh's topics by name."""
        limit = request.query["limit"]
        found = await self._behind(request.query["after"], limit)
        items = sorted((self._item(topic) for topic in found), key=_cursor)
        return await page(request, listed(items, _cursor), _cursor, limit)

    async def keyless(self, request: Request) -> Reply:
        """Return the subscribers that do not have the present key of a topic."""
        topic = request.query["topic"]
        if topic is None:
            raise InvalidField("invalid_parameter", "topic", "Name the topic: ?topic=NAME.")
        try:
            answer = await self.call("topic_key", {"topic": topic}, topic_key_replies.topic_keys)
        except ProtocolError as error:
            if error.code != "topic_not_found":
                raise
            raise self.known.missing(topic, is_queue=False) from error
        # Without a key there is none to lack.
        missing = answer.missing if answer.current is not None else ()
        items = sorted(({"member_id": one.member_id, "name": one.name} for one in missing), key=_name)
        return Reply(200, {"topic": topic, "items": items, "more": answer.missing_more})

    def _item(self, entry: TopicEntry) -> dict[str, Any]:
        number = entry.key_epoch
        return {
            "topic": entry.topic,
            "mode": entry.mode,
            "subscribed": entry.subscribed,
            "subscribers": entry.subscribers,
            # A post waits for the key of its topic, which its sender makes if there is none.
            "sealed": True,
            "key_epoch": number,
            "have_key": number is not None and self.keys.find(entry.topic, number) is not None,
            "members_without_key": entry.members_without_key,
            "created_at": None if entry.created_at is None else iso_ms(entry.created_at),
        }

    async def _behind(self, after: str | None, limit: int) -> Sequence[TopicEntry]:
        """Return one topic more than `limit` after a name, or all that exist."""
        found: list[TopicEntry] = []
        params: dict[str, Any] = {} if after is None else {"after": after}
        while True:
            try:
                answer = await self.call("topic_list", params, replies.topic_list)
            except ProtocolError as error:
                if error.code != "unknown_field":
                    raise
                # A broker without pages lists all topics at once.
                answer = await self.call("topic_list", {}, replies.topic_list)
            found += answer.items
            if answer.next is None or len(found) > limit:
                return found
            params = {"after": answer.next}


def _name(item: Item) -> str:
    name: str = item["name"]
    return name


def _cursor(item: Item) -> str:
    name: str = item["topic"]
    return name


_ERRORS = (403, 404, 409, 503)

ROUTES = (
    Route(
        "POST",
        "/v1/topic/create",
        "Create a topic or a queue",
        {200: TopicCreated, 201: TopicCreated},
        TopicRoutes.create,
        body=TopicCreateBody,
        errors=_ERRORS,
    ),
    Route(
        "POST",
        "/v1/topic/subscribe",
        "Subscribe to a topic",
        {200: TopicSubscribed},
        TopicRoutes.subscribe,
        body=TopicBody,
        errors=_ERRORS,
    ),
    Route(
        "POST",
        "/v1/topic/unsubscribe",
        "Remove the subscription of a topic",
        {200: TopicSubscribed},
        TopicRoutes.unsubscribe,
        body=TopicBody,
        errors=_ERRORS,
    ),
    Route(
        "POST",
        "/v1/topic/delete",
        "Delete a topic or a queue, for every member",
        {200: TopicDeleted},
        TopicRoutes.delete,
        body=TopicDeleteBody,
        errors=_ERRORS,
    ),
    Route(
        "POST",
        "/v1/topic/rekey",
        "Ask for the next key of a topic or a queue",
        {200: TopicRekeyed},
        TopicRoutes.rekey,
        body=TopicBody,
        errors=_ERRORS,
    ),
    Route(
        "GET",
        "/v1/topic/keyless",
        "List the subscribers of a topic or a queue that do not have its present key",
        {200: TopicKeyless},
        TopicRoutes.keyless,
        query=(topic_parameter("topic"),),
        errors=_ERRORS,
    ),
    Route(
        "GET",
        "/v1/topic/list",
        "List the mesh's topics",
        {200: TopicPage},
        TopicRoutes.list_topics,
        query=(page_limit(MAX_PAGE), name_cursor()),
        errors=_ERRORS,
    ),
)
