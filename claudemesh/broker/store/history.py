"""The history of a member: which messages are its own, and one page of them.

The messages of a member are dms to or from it, queue messages that it acknowledged, and posts to a topic that
were accepted while it was subscribed. They are found as ranges of history ids (`Source`), each read from an
index, so that the cost of a page depends on its length and on the number of sources.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal, Protocol, TypeAlias

from msgspec import Struct

from claudemesh.broker.store.types import DueDelivery

# Above every history id.
BEYOND: Final = 2**63 - 1
# Messages that are read at a time: the bytes of a page are bounded, and its length is not known before.
READ_ROWS: Final = 16

Family: TypeAlias = Literal["to", "from", "taken"]


class HistoryWanted(Struct, frozen=True):
    """A page of a member's history.

    With `after` the page holds the oldest messages behind this history id. Without it, the page holds the
    newest ones. `before` and `destination` (kind and reference) restrict both.
    """

    mesh_id: str
    member_id: str
    after: int | None
    before: int | None
    limit: int
    max_bytes: int
    destination: tuple[str, str] | None = None

    @property
    def forward(self) -> bool:
        """Whether the page is read from its oldest message."""
        return self.after is not None

    @property
    def low(self) -> int:
        """The history id that the page begins behind."""
        return self.after or 0

    @property
    def high(self) -> int:
        """The history id that the page ends before."""
        return BEYOND if self.before is None else self.before


class HistoryPage(Struct, frozen=True):
    """A page in the order of the history ids. `more`: there are others in the direction of reading.

    Messages below `pruned_before` are deleted, except those that a member is still owed.
    """

    rows: Sequence[DueDelivery]
    more: bool
    pruned_before: int


class Source(Struct, frozen=True):
    """A range of messages: between two history ids, and to one destination.

    `to` holds messages to a key or topic, `from` the dms of a member to a key, `taken` the messages that a
    member took from a queue.
    """

    family: Family
    kind: str
    ref: str
    member_id: str
    low: int
    high: int


def clip(sources: Iterable[Source], wanted: HistoryWanted) -> list[Source]:
    """Return the sources within the bounds of a page, without empty ones."""
    clipped = (
        Source(
            one.family, one.kind, one.ref, one.member_id, max(one.low, wanted.low), min(one.high, wanted.high)
        )
        for one in sources
    )
    return [one for one in clipped if one.high - one.low > 1]


def within(rows: Sequence[DueDelivery], used: int, max_bytes: int) -> int:
    """Return how many of these rows fit behind `used` bytes."""
    for index, row in enumerate(rows):
        used += len(row.envelope)
        if used > max_bytes:
            return index
    return len(rows)


class HistoryStore(Protocol):
    """Pages of members' histories."""

    async def page(self, wanted: HistoryWanted) -> HistoryPage:
        """Return at most `limit` messages and `max_bytes` of envelopes, and one message at least."""
        ...
