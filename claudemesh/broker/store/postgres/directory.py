"""Member lists by versions on Postgres."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from msgspec.structs import replace

from claudemesh.broker.store.decisions import page_of
from claudemesh.broker.store.postgres.members import read_members
from claudemesh.broker.store.postgres.pools import Pools
from claudemesh.broker.store.postgres.queries import QUERIES as _Q
from claudemesh.broker.store.postgres.statements import with_statements
from claudemesh.broker.store.types import Page, Version


class PostgresDirectory:
    """Implements `DirectoryStore`."""

    def __init__(self, pools: Pools) -> None:
        self._db = pools

    async def version(self, mesh_id: str) -> Version | None:
        return await self._db.run(lambda connection: _newest(connection, mesh_id))

    async def versions(self, mesh_ids: Collection[str]) -> Mapping[str, Version]:
        rows = await self._db.fetch(_Q["directory_versions"], sorted(mesh_ids))
        return {str(row[0]): Version(row[1], row[2].hex) for row in rows}

    async def page(self, mesh_id: str, since: Version | None, *, after: int = 0, limit: int) -> Page:
        return await self._db.run(lambda connection: _page(connection, mesh_id, since, after, limit))


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
        rows = await read_members(
            connection, "directory_changes", mesh_id, since.number, since.number, limit + 1
        )
        rows = await with_statements(connection, rows)
        page = page_of(rows, limit, newest, is_whole=False)
        if page.next is None:
            return page
        token = await _token(connection, mesh_id, page.next)
        return replace(page, version=None if token is None else Version(page.next, token))
    rows = await read_members(connection, "directory_listed", mesh_id, after, limit + 1)
    return page_of(await with_statements(connection, rows), limit, newest, is_whole=True)
