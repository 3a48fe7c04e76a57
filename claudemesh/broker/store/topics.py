"""Topics, work queues and subscriptions: the row of a list, and the operations of a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from claudemesh.broker.store.types import TopicMode


class TopicRow(Struct, frozen=True):
    """A topic or queue as one member sees it.

    `key_epoch` is 0 before the first epoch. `keyless` are active subscribers without a wrap of the present
    epoch for their present key.
    """

    topic: str
    mode: TopicMode
    created_at: int
    subscribed: bool
    subscribers: int | None  # None where they were not counted
    key_epoch: int = 0
    keyless: int | None = None  # likewise


class TopicStore(Protocol):
    """Topics, work queues and subscriptions."""

    async def create(self, mesh_id: str, topic: str, mode: TopicMode, member_id: str, now_ms: int) -> bool:
        """Create a topic or a queue. False: there is one of this name."""
        ...

    async def mode(self, mesh_id: str, topic: str) -> TopicMode | None:
        """Return `topic` or `queue`, None when there is neither of this name."""
        ...

    async def subscribe(self, mesh_id: str, topic: str, member_id: str, now_ms: int) -> bool:
        """Subscribe a member; once more changes nothing. False: there is no such topic."""
        ...

    async def unsubscribe(self, mesh_id: str, topic: str, member_id: str) -> bool:
        """Remove a subscription. False: there was none."""
        ...

    async def page(
        self, mesh_id: str, member_id: str, *, after: str = "", limit: int = 1000, counts: bool = True
    ) -> Sequence[TopicRow]:
        """Return topics as one member sees them, in the order of their names, from behind `after`.

        Without `counts` the subscribers are not counted: counting takes longer the more there are.
        """
        ...
