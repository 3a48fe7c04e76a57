"""A mesh's lists as the store gives them: members by versions and pages, and single entries.

Every change of a member that others see makes a new version, in the transaction that makes the change. The
database does that by triggers, so that no statement forgets it. A version's token is random: a version that a
restored database has given to other changes is not taken for the one that a reader has.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from claudemesh.broker.store.base import Member, TopicMode

_VERSION = re.compile(r"(\d{1,18})-([0-9a-f]{32})")


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a mesh's member list. As text it is the number and the token."""

    number: int
    token: str

    def __str__(self) -> str:
        return f"{self.number}-{self.token}"


def parse_version(text: str) -> Version | None:
    """Return the version that a text names, None when it names none."""
    match = _VERSION.fullmatch(text)
    return None if match is None else Version(int(match[1]), match[2])


@dataclass(frozen=True, slots=True)
class Page:
    """One page of the list.

    `is_whole`: the page belongs to a whole list, in which those who have left are missing; otherwise it holds
    changes, and members that have left are among them. `next` is where the following page begins, None on the
    last one. `version` is what a reader has who has read up to the end of this page; it is None where that is
    no version, on all pages of a whole list but the last one.
    """

    members: tuple[Member, ...]
    version: Version | None
    next: int | None
    is_whole: bool


class Listing(Protocol):
    """The member lists of all meshes. Raises `StorageError`."""

    async def version(self, mesh_id: str) -> Version | None:
        """Return the newest version; None for a mesh that is not there."""
        ...

    async def versions(self, mesh_ids: Collection[str]) -> Mapping[str, Version]:
        """Return the newest versions of some meshes."""
        ...

    async def page(self, mesh_id: str, since: Version | None, *, after: int = 0, limit: int) -> Page:
        """Return the changes since a version, or the whole list when that version is not known.

        `after` is the `next` of the page before, in a whole list.
        """
        ...

    async def by_name(self, mesh_id: str, after: str, limit: int) -> Sequence[Member]:
        """Return members that ever joined, in the order of their names, beginning behind a name."""
        ...

    async def find(self, mesh_id: str, wanted: str) -> Member | None:
        """Return the member of a name, a current key or a member id."""
        ...

    async def of_any_key(self, mesh_id: str, pubkey: str) -> Member | None:
        """Return the member that a key belongs to, present or past."""
        ...

    async def topic_mode(self, mesh_id: str, topic: str) -> TopicMode | None:
        """Return the kind of a topic; None when there is none of this name."""
        ...

    async def privileged(self, mesh_id: str) -> Sequence[str]:
        """Return the ids of the active owners and admins."""
        ...


def page_of(rows: Sequence[Member], limit: int, newest: Version | None, *, is_whole: bool) -> Page:
    """Make the page of at most `limit` members of rows, one more than that when there are more.

    The newest version was read first: what has changed since belongs to the next one.
    """
    rows = [row for row in rows if newest is not None and row.changed_version <= newest.number]
    members = tuple(rows[:limit])
    if len(rows) > limit:
        return Page(members, None, members[-1].changed_version, is_whole)
    return Page(members, newest, None, is_whole)
