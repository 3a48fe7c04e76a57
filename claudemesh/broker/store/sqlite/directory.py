"""The member lists on SQLite (`Listing`)."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import orjson

from claudemesh.broker.store.sqlite.members import read_members
from claudemesh.broker.store.sqlite.queries import QUERIES as _Q
from claudemesh.broker.store.types import Member, Page, TopicMode, Version, page_of
from claudemesh.protocol.ids import HEX_32, UUID_TEXT
from claudemesh.runtime.sqlite import Database


class SqliteListing:
    """Implements `Listing`: one reading function each."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def version(self, mesh_id: str) -> Version | None:
        """Return the newest version; None for a mesh that is not there."""
        return await self._db.run(lambda raw: _newest(raw, mesh_id))

    async def versions(self, mesh_ids: Collection[str]) -> Mapping[str, Version]:
        """Return the newest versions of some meshes."""
        values = (orjson.dumps(sorted(mesh_ids)).decode(),)
        rows = await self._db.run(lambda raw: raw.execute(_Q["directory_versions"], values).fetchall())
        return {mesh_id: Version(number, token) for mesh_id, number, token in rows}

    async def page(self, mesh_id: str, since: Version | None, *, after: int = 0, limit: int) -> Page:
        """Return the changes since a version, or the whole list when that version is not known."""
        return await self._db.run(lambda raw: _page(raw, mesh_id, since, after, limit))

    async def by_name(self, mesh_id: str, after: str, limit: int) -> Sequence[Member]:
        """Return members that ever joined, in the order of their names, beginning behind a name."""
        return await self._members("members_by_name", mesh_id, after, limit)

    async def find(self, mesh_id: str, wanted: str) -> Member | None:
        """Return the member of a name, a current key or a member id."""
        for query, form in (("member_by_key", HEX_32), ("member_of_id", UUID_TEXT), ("member_named", None)):
            if form is None or form.fullmatch(wanted):
                found = await self._members(query, mesh_id, wanted)
                if found and (query != "member_by_key" or found[0].ed25519_pubkey == wanted):
                    return found[0]
        return None

    async def of_any_key(self, mesh_id: str, pubkey: str) -> Member | None:
        """Return the member that a key belongs to, present or past."""
        found = await self._members("member_by_key", mesh_id, pubkey)
        return found[0] if found else None

    async def topic_mode(self, mesh_id: str, topic: str) -> TopicMode | None:
        """Return the kind of a topic; None when there is none of this name."""
        row = await self._db.run(lambda raw: raw.execute(_Q["topic_mode"], (mesh_id, topic)).fetchone())
        return None if row is None else row[0]

    async def privileged(self, mesh_id: str) -> Sequence[str]:
        """Return the ids of the active owners and admins."""
        rows = await self._db.run(lambda raw: raw.execute(_Q["members_privileged"], (mesh_id,)).fetchall())
        return [row[0] for row in rows]

    async def _members(self, query: str, *values: object) -> Sequence[Member]:
        return await self._db.run(lambda raw: read_members(raw, raw.execute(_Q[query], values)))


def _newest(raw: sqlite3.Connection, mesh_id: str) -> Version | None:
    row = raw.execute(_Q["directory_version"], (mesh_id,)).fetchone()
    return None if row is None else Version(*row)


def _page(raw: sqlite3.Connection, mesh_id: str, since: Version | None, after: int, limit: int) -> Page:
    newest = _newest(raw, mesh_id)
    if since is not None and since == newest:
        return Page((), newest, None, is_whole=False)
    if since is not None and _token(raw, mesh_id, since.number) == since.token:
        values = (mesh_id, since.number, since.number, limit + 1)
        rows = read_members(raw, raw.execute(_Q["directory_changes"], values))
        page = page_of(rows, limit, newest, is_whole=False)
        if page.next is None:
            return page
        token = _token(raw, mesh_id, page.next)
        return replace(page, version=None if token is None else Version(page.next, token))
    rows = read_members(raw, raw.execute(_Q["directory_listed"], (mesh_id, after, limit + 1)))
    return page_of(rows, limit, newest, is_whole=True)


def _token(raw: sqlite3.Connection, mesh_id: str, number: int) -> str | None:
    row = raw.execute(_Q["directory_token"], (mesh_id, number)).fetchone()
    return None if row is None else str(row[0])
