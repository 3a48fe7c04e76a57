"""Member lists by versions on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping

import orjson
from msgspec.structs import replace

from claudemesh.broker.store.decisions import page_of
from claudemesh.broker.store.sqlite.members import read_members
from claudemesh.broker.store.sqlite.queries import QUERIES as _Q
from claudemesh.broker.store.sqlite.statements import with_statements
from claudemesh.broker.store.types import Page, Version
from claudemesh.runtime.sqlite import Database


class SqliteDirectory:
    """Implements `DirectoryStore`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def version(self, mesh_id: str) -> Version | None:
        return await self._db.run(lambda raw: _newest(raw, mesh_id))

    async def versions(self, mesh_ids: Collection[str]) -> Mapping[str, Version]:
        values = (orjson.dumps(sorted(mesh_ids)).decode(),)
        rows = await self._db.run(lambda raw: raw.execute(_Q["directory_versions"], values).fetchall())
        return {mesh_id: Version(number, token) for mesh_id, number, token in rows}

    async def page(self, mesh_id: str, since: Version | None, *, after: int = 0, limit: int) -> Page:
        return await self._db.run(lambda raw: _page(raw, mesh_id, since, after, limit))


def _newest(raw: sqlite3.Connection, mesh_id: str) -> Version | None:
    row = raw.execute(_Q["directory_version"], (mesh_id,)).fetchone()
    return None if row is None else Version(*row)


def _page(raw: sqlite3.Connection, mesh_id: str, since: Version | None, after: int, limit: int) -> Page:
    newest = _newest(raw, mesh_id)
    if since is not None and since == newest:
        return Page((), newest, None, is_whole=False)
    if since is not None and _token(raw, mesh_id, since.number) == since.token:
        values = (mesh_id, since.number, since.number, limit + 1)
        rows = with_statements(raw, read_members(raw, raw.execute(_Q["directory_changes"], values)))
        page = page_of(rows, limit, newest, is_whole=False)
        if page.next is None:
            return page
        token = _token(raw, mesh_id, page.next)
        return replace(page, version=None if token is None else Version(page.next, token))
    rows = read_members(raw, raw.execute(_Q["directory_listed"], (mesh_id, after, limit + 1)))
    rows = with_statements(raw, rows)
    return page_of(rows, limit, newest, is_whole=True)


def _token(raw: sqlite3.Connection, mesh_id: str, number: int) -> str | None:
    row = raw.execute(_Q["directory_token"], (mesh_id, number)).fetchone()
    return None if row is None else str(row[0])
