"""The member lists on Postgres (`Listing`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from claudemesh.broker.store.postgres.members import with_earlier_keys
from claudemesh.broker.store.postgres.pools import Pools
from claudemesh.broker.store.postgres.queries import QUERIES as _Q
from claudemesh.broker.store.postgres.values import key_bytes
from claudemesh.broker.store.types import Member, Page, TopicMode, Version, page_of
from claudemesh.protocol.ids import HEX_32, UUID_TEXT


class PostgresListing:
    """Implements `Listing`."""

    def __init__(self, pools: Pools) -> None:
        self._db = pools

    async def version(self, mesh_id: str) -> Version | None:
        """Return the newest version; None for a mesh that is not there."""
        return await self._db.run(lambda connection: _newest(connection, mesh_id))

    async def versions(self, mesh_ids: Collection[str]) -> Mapping[str, Version]:
        """Return the newest versions of some meshes."""
        rows = await self._db.fetch(_Q["directory_versions"], sorted(mesh_ids))
        return {str(row[0]): Version(row[1], row[2].hex) for row in rows}

    async def page(self, mesh_id: str, since: Version | None, *, after: int = 0, limit: int) -> Page:
        """Return the changes since a version, or the whole list when that version is not known."""
        return await self._db.run(lambda connection: _page(connection, mesh_id, since, after, limit))

    async def by_name(self, mesh_id: str, after: str, limit: int) -> Sequence[Member]:
        """Return members that ever joined, in the order of their names, beginning behind a name."""
        return await self._members("members_by_name", mesh_id, after, limit)

    async def find(self, mesh_id: str, wanted: str) -> Member | None:
        """Return the member of a name, a current key or a member id."""
        if HEX_32.fullmatch(wanted):
            found = await self.of_any_key(mesh_id, wanted)
            if found is not None and found.ed25519_pubkey == wanted:
                return found
        for query, form in (("member_of_id", UUID_TEXT), ("member_named", None)):
            if form is None or form.fullmatch(wanted):
                rows = await self._members(query, mesh_id, wanted)
                if rows:
                    return rows[0]
        return None

    async def of_any_key(self, mesh_id: str, pubkey: str) -> Member | None:
        """Return the member that a key belongs to, present or past."""
        found = await self._members("member_by_key", mesh_id, key_bytes(pubkey))
        return found[0] if found else None

    async def topic_mode(self, mesh_id: str, topic: str) -> TopicMode | None:
        """Return the kind of a topic; None when there is none of this name."""
        rows = await self._db.fetch(_Q["topic_mode"], mesh_id, topic)
        return rows[0][0] if rows else None

    async def privileged(self, mesh_id: str) -> Sequence[str]:
        """Return the ids of the active owners and admins."""
        return [str(row[0]) for row in await self._db.fetch(_Q["members_privileged"], mesh_id)]

    async def _members(self, query: str, mesh_id: str, *values: object) -> Sequence[Member]:
        return await self._db.run(lambda connection: _read(connection, query, mesh_id, *values))


async def _read(connection: Any, query: str, mesh_id: str, *values: object) -> list[Member]:
    rows = await connection.fetch(_Q[query], mesh_id, *values)
    return await with_earlier_keys(connection, mesh_id, rows)


async def _newest(connection: Any, mesh_id: str) -> Version | None:
    row = await connection.fetchrow(_Q["directory_version"], mesh_id)
    return None if row is None else Version(row[0], row[1].hex)


async def _token(connection: Any, mesh_id: str, number: int) -> str | None:
    token = await connection.fetchval(_Q["directory_token"], mesh_id, number)
    return None if token is None else str(token.hex)


async def _page(connection: Any, mesh_id: str, since: Version | None, after: int, limit: int) -> Page:
    newest = await _newest(connection, mesh_id)
    if since is not None and since == newest:
        return Page((), newest, None, is_whole=False)
    if since is not None and await _token(connection, mesh_id, since.number) == since.token:
        rows = await _read(connection, "directory_changes", mesh_id, since.number, since.number, limit + 1)
        page = page_of(rows, limit, newest, is_whole=False)
        if page.next is None:
            return page
        token = await _token(connection, mesh_id, page.next)
        return replace(page, version=None if token is None else Version(page.next, token))
    return page_of(
        await _read(connection, "directory_listed", mesh_id, after, limit + 1), limit, newest, is_whole=True
    )
