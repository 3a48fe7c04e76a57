"""Joining on Postgres: one use of an invite is taken with the member row, or not at all (lifecycle.md)."""

from __future__ import annotations

from typing import Any

from claudemesh.broker.store.postgres.queries import QUERIES as _Q
from claudemesh.broker.store.postgres.values import invite_of, key_bytes, members_of
from claudemesh.broker.store.types import DEFAULT_TOPIC, InviteRow, Joined, JoinRefused, Member


class Rejected(Exception):
    """Rolls a join back and carries why."""

    def __init__(self, error: str) -> None:
        super().__init__(error)
        self.outcome = JoinRefused(error)


async def join(connection: Any, invite: InviteRow, member: Member, now_ms: int) -> Joined:
    """Do it inside the caller's transaction. `Rejected` wrote nothing that may stay."""
    mesh_id = invite.mesh_id
    inviter = await connection.fetchrow(_Q["inviter_lock"], mesh_id, key_bytes(invite.created_by))
    if inviter is None or not _may_invite(inviter["status"], inviter["role"], invite):
        raise Rejected("not_authorized")
    await register(connection, invite)
    # Who joins by the same invite waits here for one another.
    row = await connection.fetchrow(_Q["invite_lock"], mesh_id, invite.id)
    if row is None:
        raise Rejected("not_authorized")
    kept = invite_of(row)
    again = await members_by_key(connection, "member_by_key", mesh_id, member.ed25519_pubkey)
    if again:
        if again[0].name == member.name and again[0].status == "active":
            return Joined(again[0], created=False)
        raise Rejected("key_taken")
    if (
        await connection.fetchrow(_Q["sealing_key_taken"], mesh_id, key_bytes(member.x25519_pubkey))
        is not None
    ):
        raise Rejected("key_taken")
    if kept.revoked_at is not None:
        raise Rejected("invite_revoked")
    if kept.expires_at <= now_ms:
        raise Rejected("invite_expired")
    if await connection.fetchrow(_Q["member_by_name"], mesh_id, member.name) is not None:
        raise Rejected("name_taken")
    if await connection.fetchrow(_Q["member_id_taken"], member.id) is not None:
        raise Rejected("id_taken")
    if await connection.execute(_Q["invite_take"], mesh_id, invite.id, now_ms) != "UPDATE 1":
        raise Rejected("invite_exhausted")
    await insert_member(connection, member)
    return Joined(member, created=True)


def _may_invite(status: str, role: str, invite: InviteRow) -> bool:
    if status != "active" or role == "member":
        return False
    return role == "owner" or invite.role != "owner"


async def register(connection: Any, invite: InviteRow) -> bool:
    """Keep an invite; False when it was known, whose content then stays."""
    tag = await connection.execute(
        _Q["invite_register"],
        invite.id,
        invite.mesh_id,
        invite.role,
        key_bytes(invite.created_by),
        invite.expires_at,
        invite.max_uses,
        invite.revoked_at,
    )
    return bool(tag == "INSERT 0 1")


async def members_by_key(connection: Any, query: str, mesh_id: str, pubkey: str) -> list[Member]:
    """Return the members that a query finds by a key: one, or none."""
    rows = await connection.fetch(_Q[query], mesh_id, key_bytes(pubkey))
    return await with_earlier_keys(connection, mesh_id, rows)


async def with_earlier_keys(connection: Any, mesh_id: str, rows: list[Any]) -> list[Member]:
    """Return members from their rows, each with its rotated-out keys."""
    earlier = await connection.fetch(_Q["earlier_keys"], mesh_id, [row["id"] for row in rows]) if rows else ()
    return members_of(rows, earlier)


async def insert_member(connection: Any, member: Member) -> None:
    """Write a member, its key, and its subscription to the topic of everybody."""
    keys = (key_bytes(member.ed25519_pubkey), key_bytes(member.x25519_pubkey))
    await connection.execute(
        _Q["member_insert"],
        member.id,
        member.mesh_id,
        member.name,
        member.role,
        member.status,
        *keys,
        member.x25519_signature,
        member.key_id,
        member.ephemeral,
        member.summary,
        member.presence_status,
        member.visible,
        member.created_at,
    )
    await connection.execute(
        _Q["member_key_insert"], member.key_id, member.mesh_id, member.id, *keys, member.created_at
    )
    await connection.execute(
        _Q["topic_subscribe"], member.mesh_id, DEFAULT_TOPIC, member.id, member.created_at
    )
