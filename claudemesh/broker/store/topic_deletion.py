"""Deletion of topics: the decision, and the operations of a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from msgspec import Struct

from claudemesh.broker.store.types import TopicMode

# Deletions that a mesh remembers; the oldest go first.
MOST_DELETIONS: Final = 10_000


class Deletion(Struct, frozen=True):
    """The wish of a member to delete a topic. `may_any`: its role allows it for topics of other members.

    With `force` the messages of a queue that no subscriber has acknowledged are dropped.
    """

    mesh_id: str
    topic: str
    member_id: str
    may_any: bool
    force: bool
    now_ms: int
    # Deletions that the mesh remembers after this one.
    remembered: int = MOST_DELETIONS


class TopicGone(Struct, frozen=True):
    """The topic and its subscriptions are deleted; `dropped` messages of a queue go to no member."""

    mode: TopicMode
    dropped: int


class TopicKept(Struct, frozen=True):
    """Nothing was deleted: topic_not_found, not_authorized, or queue_not_empty with the messages in it."""

    code: str
    waiting: int = 0


def judge_deletion(wish: Deletion, created_by: str | None, waiting: int) -> TopicKept | None:
    """Decide whether a topic is kept. `created_by` is None without such a topic, `waiting` 0 for topics."""
    if created_by is None:
        return TopicKept("topic_not_found")
    if not wish.may_any and created_by != wish.member_id:
        return TopicKept("not_authorized")
    return TopicKept("queue_not_empty", waiting) if waiting and not wish.force else None


class TopicDeletionStore(Protocol):
    """Deletion of topics and work queues."""

    async def delete(self, wish: Deletion) -> TopicGone | TopicKept:
        """Delete a topic with its subscriptions, in one transaction (`judge_deletion`).

        Deliveries of a topic that are due stay: the posts were accepted for their recipients.
        """
        ...

    async def deleted(self, mesh_id: str, topics: Sequence[str]) -> Sequence[str]:
        """Return those of some names whose topics were deleted and not created since."""
        ...
