"""The route of the history: messages of this member that the broker keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from msgspec import Struct

from claudemesh.daemon.api.parameters import member
from claudemesh.daemon.api.schemas_history import HistoryAnswer
from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.inbox.history import History, HistoryWish, OwnMessage
from claudemesh.daemon.inbox.store import item
from claudemesh.daemon.outbox.request import check_topic_or_queue
from claudemesh.protocol.errors import InvalidField, ProtocolError
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.destinations import spell_destination
from claudemesh.runtime.web.paging import page_limit
from claudemesh.runtime.web.query import Parameter, whole_number
from claudemesh.runtime.web.replies import Reply
from claudemesh.runtime.web.routes import Request, Route

_LARGEST = 2**63 - 1
# Fields of an inbox message that a message of the history has not.
_NOT_HERE = (
    "seq",
    "id",
    "received_at",
    "notified_at",
    "shown_at",
    "acked_at",
    "seen_by",
    "recovered",
    "for_session",
    "hops",
    "in_loop",
)


class Topics(Protocol):
    """The topics and queues of the broker."""

    def check(self, kind: str, name: str) -> None:
        """Raise `ProtocolError` topic_not_found for one that is not listed."""
        ...

    async def after_miss(self) -> bool:
        """Ask the broker for a newer list."""
        ...


class HistoryRoutes(Struct, frozen=True, kw_only=True):
    """The handler of /v1/history (docs/spec/daemon.md, Local API).

    `topics` tells which topics and queues the broker has.
    """

    history: History
    topics: Topics
    directory: Directory
    clock: Clock

    async def list_history(self, request: Request) -> Reply:
        """Return a page of messages that the broker keeps."""
        query = request.query
        wish = HistoryWish(query["limit"], query["after"], query["before"], self._destination(query))
        seen = await self.history.page(wish, self.clock.wall_ms())
        if query["topic"] is not None and not seen.messages:
            await self._check_topic(query["topic"])
        return Reply(
            200,
            {
                "items": [_item(one) for one in seen.messages],
                "next": None if seen.next is None else str(seen.next),
                "pruned_before": seen.pruned_before,
                "dropped": seen.dropped,
            },
        )

    async def _check_topic(self, spelled: str) -> None:
        """Raise `ProtocolError` topic_not_found for a topic or queue that the broker does not have.

        Messages of a deleted topic are shown, so only an empty page asks.
        """
        kind = "queue" if spelled.startswith("queue:") else "topic"
        name = spelled.removeprefix("queue:").removeprefix("#")
        try:
            self.topics.check(kind, name)
        except ProtocolError:
            await self.topics.after_miss()
            self.topics.check(kind, name)

    def _destination(self, query: Mapping[str, Any]) -> str | None:
        topic, name = query["topic"], query["with"]
        if topic is not None and name is not None:
            raise InvalidField("invalid_parameter", "with", "Give topic or with, not both.")
        if name is None:
            return None if topic is None else str(topic)
        is_key = len(name) == 64
        return self.directory.resolve(name=None if is_key else name, key=name if is_key else None).pubkey


def _item(one: OwnMessage) -> Mapping[str, Any]:
    shown = item(one.row, 0)
    for name in _NOT_HERE:
        shown.pop(name, None)
    recipient = one.recipient
    shown["own"] = one.is_own
    peer = None if recipient is None else recipient.peer
    shown["recipient_pubkey"] = None if recipient is None else recipient.pubkey
    shown["recipient_member_id"] = None if peer is None else peer.member_id
    shown["recipient_name"] = None if peer is None else peer.name
    return shown


def _topic() -> Parameter:
    def read(text: str) -> str:
        kind = "queue" if text.startswith("queue:") else "topic"
        return spell_destination(kind, check_topic_or_queue(text))

    return Parameter("topic", {"type": "string"}, "a topic's name, or queue: and a queue's name", read)


ROUTES = (
    Route(
        "GET",
        "/v1/history",
        "List messages of this member that the broker keeps, the newest ones, or those behind after",
        {200: HistoryAnswer},
        HistoryRoutes.list_history,
        query=(
            _topic(),
            member("with"),
            whole_number("after", 0, _LARGEST),
            whole_number("before", 0, _LARGEST),
            page_limit(),
        ),
        errors=(404, 503),
    ),
)
