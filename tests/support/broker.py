"""A real broker inside the test's own event loop, on a free port, in a directory that goes away."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from claudemesh.broker.app import Broker
from claudemesh.broker.settings import BrokerSettings, Limits
from claudemesh.broker.store.types import Member, Mesh
from claudemesh.protocol.ids import uuid_from_ulid
from claudemesh.protocol.keys import Identity
from claudemesh.runtime.clock import Clock
from tests.support.values import replace
from tests.support.wspeer import Link, Peer, http_request, make_identity, make_invite, owner_body


@asynccontextmanager
async def running_broker(
    *, limits: Limits | None = None, clock: Clock | None = None, data_dir: Path | None = None, **settings: Any
) -> AsyncGenerator[Broker]:
    """Start a broker, and stop it at the end. Settings by their names; `data_dir` to keep its data."""
    with tempfile.TemporaryDirectory() as folder:
        if "database_url" in settings:
            # Brokers on one database share their token.
            settings.setdefault("admin_token", "the-token-of-all-brokers-of-a-database")
        made = BrokerSettings(
            listen=settings.pop("listen", "127.0.0.1:0"),
            data_dir=data_dir or Path(folder) / "broker",
            limits=limits or Limits(),
            **settings,
        )
        broker = Broker(made, clock) if clock is not None else Broker(made)
        await broker.start()
        try:
            yield broker
        finally:
            await broker.stop()


async def create_mesh(broker: Broker, slug: str = "home", owner: str = "owner", **policies: Any) -> Peer:
    """Make a mesh and return its owner. With policies (the columns of a mesh) it goes past the admin API."""
    identity = make_identity()
    if policies:
        return await _create_directly(broker, slug, owner, identity, policies)
    status, body = await http_request(
        broker.url,
        "POST",
        "/v1/admin/meshes",
        {"slug": slug, "owner": owner_body(owner, identity)},
        token=broker.admin_token,
    )
    assert status == 201, body
    return Peer(
        owner, identity, body["mesh_id"], slug, body["member_id"], broker.url, await _challenge(broker)
    )


async def join_mesh(owner: Peer, name: str, *, invite: str | None = None, **fields: Any) -> Peer:
    """Let a new member join by an invite of the owner's and return it."""
    identity = make_identity()
    link = invite if invite is not None else make_invite(owner)
    status, body = await http_request(
        owner.broker_url, "POST", "/v1/join", owner.join_body(link, name, identity) | fields
    )
    assert status == 201, body
    return replace(owner, name=name, identity=identity, member_id=body["member_id"])


async def nothing_else_is_told(link: Link, owner: Peer) -> None:
    """Let a member connect to the owner's broker, and check that no other presence event was sent before."""
    last = await join_mesh(owner, "the-last")
    async with last.connect():
        assert (await link.event("peer_join"))["member_id"] == last.member_id
        told = {frame["event"] for frame in link.waiting("event")}
        assert told <= {"member_added"}, told


async def _create_directly(
    broker: Broker, slug: str, owner: str, identity: Identity, policies: dict[str, Any]
) -> Peer:
    context = broker.context
    mesh = replace(Mesh(id=_uuid(broker), slug=slug, created_at=context.clock.wall_ms()), **policies)
    member = Member(
        id=_uuid(broker),
        mesh_id=mesh.id,
        name=owner,
        role="owner",
        status="active",
        ed25519_pubkey=identity.ed25519_pubkey,
        x25519_pubkey=identity.x25519_pubkey,
        x25519_signature=identity.x25519_signature,
        key_id=identity.key_id,
        ephemeral=False,
        created_at=context.clock.wall_ms(),
    )
    assert await context.store.meshes.create(mesh, member)
    return Peer(owner, identity, mesh.id, slug, member.id, broker.url, await _challenge(broker))


async def _challenge(broker: Broker) -> str:
    _, answer = await http_request(broker.url, "GET", "/v1/join/challenge")
    key: str = answer["challenge_key"]
    return key


def _uuid(broker: Broker) -> str:
    return uuid_from_ulid(broker.context.mint())
