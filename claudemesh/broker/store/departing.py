"""Departed members: the removal of ephemeral members that have left (docs/spec/broker.md, Retention and
audits)."""

from __future__ import annotations

from typing import Final, Protocol

from msgspec import Struct

# Members and deliveries of one batch.
BATCH_MEMBERS: Final = 200
BATCH_DELIVERIES: Final = 2000


class Departed(Struct, frozen=True):
    """One batch: how many members were deleted, and where the next batch begins (None: there is none)."""

    count: int
    after: int | None


def following(after: int, versions: list[int], deliveries: int) -> int | None:
    """Return where the next batch begins: at the same members while they are owed more deliveries."""
    if deliveries >= BATCH_DELIVERIES:
        return after
    return versions[-1] if len(versions) >= BATCH_MEMBERS else None


class DepartedStore(Protocol):
    """Ephemeral members that have left, in the order of their last change. A batch is one transaction."""

    async def forget(self, mesh_id: str, after: int, up_to: int) -> Departed:
        """Delete what departed members are owed and subscribed to, from the version `after` on.

        Those whose last change is not later than the version `up_to` are deleted, with their keys, when no
        message of theirs is stored. So are the tokens of older versions of the list: a reader that has one
        of them takes the whole list, because a change that it lacks is not there any more.
        """
        ...
