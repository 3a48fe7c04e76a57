"""Stores for the contract suite: one factory per engine, and builders for what goes in."""

from __future__ import annotations

import random
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from claudemesh.broker.store.base import (
    InviteRow,
    Joined,
    Member,
    Mesh,
    NewSend,
    SendKey,
    Store,
)
from claudemesh.broker.store.sqlite import SqliteStore
from claudemesh.protocol.ids import UlidFactory, uuid_from_ulid

NOW = 1_780_000_000_000
DAY = 86_400_000
ENVELOPE = b'{"body":"sealed"}'

_random = random.Random(11)
new_ulid = UlidFactory(lambda: NOW, _random.randbytes).new


@asynccontextmanager
async def _sqlite() -> AsyncGenerator[Store]:
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder) / "broker.db")
        await store.open()
        try:
            yield store
        finally:
            await store.close()


# A second engine is one more entry here; the suite asks for nothing else.
ENGINES: dict[str, Callable[[], AbstractAsyncContextManager[Store]]] = {"sqlite": _sqlite}


@dataclass(frozen=True)
class World:
    """A mesh with its owner, and ways to fill it."""

    store: Store
    mesh: Mesh
    owner: Member

    async def join(self, name: str, **changes: Any) -> Member:
        """A new member, by an invite of the owner's."""
        made = member(self.mesh.id, name, **changes)
        outcome = await self.store.join(self.invite(), made, NOW)
        assert isinstance(outcome, Joined), outcome
        return outcome.member

    def invite(self, **changes: Any) -> InviteRow:
        """An invite of the owner's, good for one."""
        row = InviteRow(new_ulid(), self.mesh.id, "member", self.owner.ed25519_pubkey, NOW + DAY, 1)
        return replace(row, **changes)

    def dm(self, sender: Member, to: Member, **changes: Any) -> NewSend:
        """A dm that passed B1."""
        return self._send(sender, "dm", to.ed25519_pubkey, changes)

    def post(self, sender: Member, topic: str, **changes: Any) -> NewSend:
        """A topic post that passed B1."""
        return self._send(sender, "topic", topic, changes)

    def _send(self, sender: Member, kind: Any, ref: str, changes: dict[str, Any]) -> NewSend:
        client_message_id = changes.pop("client_message_id", new_ulid())
        send = NewSend(
            key=SendKey(self.mesh.id, sender.id, client_message_id),
            broker_message_id=new_ulid(),
            request_fingerprint=bytes(32),
            destination_kind=kind,
            destination_ref=ref,
            priority=1,
            mentions=(),
            envelope=ENVELOPE,
        )
        return replace(send, **changes)

    async def owed(self, to: Member, limit: int = 100) -> list[str]:
        """The broker ids of what a member is owed, in the order of delivery."""
        rows = await self.store.deliveries_due(self.mesh.id, to.id, exclude=(), limit=limit)
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


@asynccontextmanager
async def world(engine: str, **policies: Any) -> AsyncGenerator[World]:
    """A store with one mesh and its owner, alice."""
    async with ENGINES[engine]() as store:
        mesh = Mesh(id=uuid_from_ulid(new_ulid()), slug="demo", created_at=NOW, **policies)
        owner = member(mesh.id, "alice", role="owner")
        assert await store.mesh_create(mesh, owner)
        yield World(store, mesh, owner)
