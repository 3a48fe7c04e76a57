"""Two brokers' stores on one database, and ways to stop the server between two steps."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from claudemesh.broker.store.deadlines import DEADLINES, DatabaseDeadlines
from claudemesh.broker.store.postgres import PostgresStore
from claudemesh.broker.store.postgres.accept import arguments
from claudemesh.broker.store.postgres.queries import QUERIES
from claudemesh.broker.store.postgres.sessions import prepare_session
from claudemesh.broker.store.types import Member, NewSend
from tests.support.stores import NOW, World, database, member, new_mesh

_GATE = 4711
_WAITING = """SELECT count(*) FROM pg_stat_activity
              WHERE datname = current_database() AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()"""


@dataclass(frozen=True)
class Shared:
    """A database with one mesh: two stores on it, and a connection of the test's own."""

    url: str
    one: World
    two: World
    bob: Member
    connection: Any

    async def count(self, table: str) -> int:
        """Return the number of rows of a table."""
        found: int = await self.connection.fetchval(f"SELECT count(*) FROM mesh.{table}")
        return found

    async def waiting(self, sessions: int = 1) -> None:
        """Return when so many sessions wait for a lock."""
        async with watching(self.url) as other:
            while await other.fetchval(_WAITING) < sessions:
                pass

    async def call_accept(self, sends: Sequence[NewSend]) -> Sequence[Any]:
        """Accept as a store would, in the present transaction of the test's connection."""
        rows: Sequence[Any] = await self.connection.fetch(QUERIES["accept"], *arguments(sends, NOW), None)
        return rows

    @asynccontextmanager
    async def gate(self, table: str, *, deferred: bool = False) -> AsyncGenerator[None]:
        """Until the end, statements that insert into a table wait behind it, or as part of their commit."""
        await self.connection.execute(
            f"""CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM pg_advisory_xact_lock_shared({_GATE}); RETURN NULL; END $$"""
        )
        kind, each = "TRIGGER", "STATEMENT"
        if deferred:
            kind, each = "CONSTRAINT TRIGGER", "ROW"
        late = "DEFERRABLE INITIALLY DEFERRED" if deferred else ""
        await self.connection.execute(
            f"CREATE {kind} gate AFTER INSERT ON mesh.{table} {late} FOR EACH {each} EXECUTE FUNCTION gate()"
        )
        await self.connection.execute(f"SELECT pg_advisory_lock({_GATE})")
        try:
            yield
        finally:
            await self.connection.execute(f"SELECT pg_advisory_unlock({_GATE})")


@asynccontextmanager
async def watching(url: str) -> AsyncGenerator[Any]:
    """A connection of the test's own, set up as the store's are."""
    connection = await asyncpg.connect(url)
    await prepare_session(connection, {})
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def shared(deadlines: DatabaseDeadlines = DEADLINES) -> AsyncGenerator[Shared]:
    """Two stores on one database; alice made the mesh, bob joined."""
    async with database() as url:
        first, second = (PostgresStore(url, deadlines=deadlines) for _ in range(2))
        await first.open()
        await second.open()
        mesh = new_mesh()
        owner = member(mesh.id, "alice", role="owner")
        assert await first.meshes.create(mesh, owner)
        one, two = World(first, mesh, owner), World(second, mesh, owner)
        bob = await one.join("bob")
        try:
            async with watching(url) as connection:
                yield Shared(url, one, two, bob, connection)
        finally:
            await first.close()
            await second.close()
