"""Stores for the contract suite: one factory per engine, and builders for what goes in."""

from __future__ import annotations

import random
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from claudemesh.broker.store.postgres import PostgresStore
from claudemesh.broker.store.protocol import Store
from claudemesh.broker.store.sqlite import SqliteStore
from claudemesh.broker.store.types import InviteRow, Joined, Member, Mesh, NewSend, PresenceRow, SendKey
from claudemesh.protocol.ids import UlidFactory, uuid_from_ulid
from claudemesh.runtime.failpoints import install
from tests.support.postgres import empty_database, shared_server, sql
from tests.support.values import replace

NOW = 1_780_000_000_000
DAY = 86_400_000
ENVELOPE = b'{"body":"sealed"}'

_random = random.Random(11)
new_ulid = UlidFactory(lambda: NOW, _random.randbytes).new


Failing: TypeAlias = Callable[[str], AbstractAsyncContextManager[None]]
# Which table was written right before a failpoint of accepting.
_BEFORE = {
    "accept.after_dedupe_rows": "client_message_dedupe",
    "accept.after_bodies": "message_queue",
    "accept.after_history": "message_history",
    "accept.after_deliveries": "delivery_queue",
    "accept.before_commit": "client_message_dedupe",
}


@dataclass(frozen=True)
class Engine:
    """A store that is open, and a way to let its accepts fail behind a step that is named as a failpoint."""

    store: Store
    failing: Failing


@asynccontextmanager
async def _sqlite() -> AsyncGenerator[Engine]:
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder) / "broker.db")
        await store.open()
        try:
            yield Engine(store, _failing_here)
        finally:
            await store.close()


@asynccontextmanager
async def _failing_here(point: str) -> AsyncGenerator[None]:
    def strike(name: str) -> None:
        if name == point:
            raise OSError("crash")

    install(strike)
    try:
        yield
    finally:
        install(None)


_migrated: set[str] = set()


@asynccontextmanager
async def database() -> AsyncGenerator[str]:
    """A database of the test's own with the schema of this version, a copy of one; yields its address."""
    server = shared_server()
    if not _migrated:
        await sql(server.url(), "CREATE DATABASE migrated")
        store = PostgresStore(server.url("migrated"))
        await store.open()
        await store.close()
        _migrated.add("migrated")
    async with empty_database(template="migrated") as url:
        yield url


@asynccontextmanager
async def _postgres() -> AsyncGenerator[Engine]:
    async with database() as url:
        store = PostgresStore(url)
        await store.open()
        try:
            yield Engine(store, partial(_failing_there, url))
        finally:
            await store.close()


@asynccontextmanager
async def _failing_there(url: str, point: str) -> AsyncGenerator[None]:
    """There the steps are the server's: a trigger fails behind one of them, or as part of the commit."""
    table = f"mesh.{_BEFORE[point]}"
    await sql(
        url,
        """CREATE FUNCTION strike() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN RAISE EXCEPTION 'crash' USING ERRCODE = 'io_error'; END $$""",
        f"""CREATE CONSTRAINT TRIGGER strike AFTER INSERT ON {table} DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION strike()"""
        if point == "accept.before_commit"
        else f"CREATE TRIGGER strike AFTER INSERT ON {table} EXECUTE FUNCTION strike()",
    )
    try:
        yield
    finally:
        await sql(url, "DROP FUNCTION strike CASCADE")


# Another engine is one more entry here; the suite asks for nothing else.
ENGINES: dict[str, Callable[[], AbstractAsyncContextManager[Engine]]] = {
    "sqlite": _sqlite,
    "postgres": _postgres,
}


@dataclass(frozen=True)
class World:
    """A mesh with its owner, and ways to fill it."""

    store: Store
    mesh: Mesh
    owner: Member
    failing: Failing = _failing_here

    async def join(self, name: str, **changes: Any) -> Member:
        """A new member, by an invite of the owner's."""
        made = member(self.mesh.id, name, **changes)
        outcome = await self.store.members.join(self.invite(), made, NOW)
        assert isinstance(outcome, Joined), outcome
        return outcome.member

    def invite(self, **changes: Any) -> InviteRow:
        """An invite of the owner's, good for one."""
        row = InviteRow(new_ulid(), self.mesh.id, "member", self.owner.ed25519_pubkey, NOW + DAY, 1)
        return replace(row, **changes)

    def dm(self, sender: Member, to: Member, **changes: Any) -> NewSend:
        """A validated dm."""
        return self._send(sender, "dm", to.ed25519_pubkey, changes)

    def post(self, sender: Member, topic: str, **changes: Any) -> NewSend:
        """A validated topic post."""
        return self._send(sender, "topic", topic, changes)

    def to_queue(self, sender: Member, queue: str, **changes: Any) -> NewSend:
        """A validated send to a queue."""
        return self._send(sender, "queue", queue, changes)

    def lease(self, member_id: str, *, until: int) -> PresenceRow:
        """A connection of a member at some broker."""
        return PresenceRow(new_ulid(), member_id, self.mesh.id, "broker-1", NOW, until)

    def _send(self, sender: Member, kind: Any, ref: str, changes: dict[str, Any]) -> NewSend:
        client_message_id = changes.pop("client_message_id", new_ulid())
        send = NewSend(
            key=SendKey(self.mesh.id, sender.id, client_message_id),
            broker_message_id=new_ulid(),
            request_fingerprint=bytes(32),
            destination_kind=kind,
            destination_ref=ref,
            priority=1,
            envelope=ENVELOPE,
        )
        return send._replace(**changes)

    async def owed(self, to: Member, limit: int = 100) -> list[str]:
        """The broker ids of what a member is owed, in the order of delivery."""
        rows = await self.store.messages.deliveries_due(self.mesh.id, to.id, exclude=(), limit=limit)
        return [row.broker_message_id for row in rows]


def member(mesh_id: str, name: str, **changes: Any) -> Member:
    """A member with keys of its own."""
    row = Member(
        id=uuid_from_ulid(new_ulid()),
        mesh_id=mesh_id,
        name=name,
        role="member",
        status="active",
        ed25519_pubkey=_random.randbytes(32).hex(),
        x25519_pubkey=_random.randbytes(32).hex(),
        x25519_signature=_random.randbytes(64),
        key_id=f"k_{new_ulid()}",
        ephemeral=False,
        created_at=NOW,
    )
    return replace(row, **changes)


def new_mesh(**policies: Any) -> Mesh:
    """A mesh of its own."""
    return Mesh(id=uuid_from_ulid(new_ulid()), slug="demo", created_at=NOW, **policies)


@asynccontextmanager
async def world(engine: str, **policies: Any) -> AsyncGenerator[World]:
    """A store with one mesh and its owner, alice."""
    async with ENGINES[engine]() as opened:
        mesh = new_mesh(**policies)
        owner = member(mesh.id, "alice", role="owner")
        assert await opened.store.meshes.create(mesh, owner)
        yield World(opened.store, mesh, owner, opened.failing)
