"""Members and invites on SQLite, inside the caller's transaction: an invite's use with its member's row."""

from __future__ import annotations

import sqlite3
from typing import Any

import orjson

from claudemesh.broker.store.sqlite.queries import QUERIES as _Q
from claudemesh.broker.store.types import DEFAULT_TOPIC, InviteRow, Joined, JoinRefused, Member


def join_member(
    raw: sqlite3.Connection, invite: InviteRow, member: Member, now_ms: int
) -> Joined | JoinRefused:
    """Take one use of an invite and write the member, or say why not; the same key once more is no error."""
    mesh_id = invite.mesh_id
    invited_by = raw.execute(_Q["member_current_by_key"], (mesh_id, invite.created_by))
    inviters = read_members(raw, invited_by)
    if not inviters or not _may_invite(inviters[0], invite):
        return JoinRefused("not_authorized")
    register_invite(raw, invite)
    found = raw.execute(_Q["invite_get"], (mesh_id, invite.id)).fetchone()
    if found is None:
        # The id is an invite of another mesh.
        return JoinRefused("not_authorized")
    kept = InviteRow(*found)
    again = read_members(raw, raw.execute(_Q["member_by_key"], (mesh_id, member.ed25519_pubkey)))
    if again:
        same = again[0].name == member.name and again[0].status == "active"
        return Joined(again[0], created=False) if same else JoinRefused("key_taken")
    if raw.execute(_Q["sealing_key_taken"], (mesh_id, member.x25519_pubkey)).fetchone() is not None:
        return JoinRefused("key_taken")
    if kept.revoked_at is not None:
        return JoinRefused("invite_revoked")
    if kept.expires_at <= now_ms:
        return JoinRefused("invite_expired")
    if raw.execute(_Q["member_by_name"], (mesh_id, member.name)).fetchone() is not None:
        return JoinRefused("name_taken")
    if raw.execute(_Q["member_id_taken"], (member.id,)).fetchone() is not None:
        return JoinRefused("id_taken")
    if raw.execute(_Q["invite_take"], (invite.id, now_ms)).rowcount == 0:
        return JoinRefused("invite_exhausted")
    insert_member(raw, member)
    return Joined(member, created=True)


def _may_invite(inviter: Member, invite: InviteRow) -> bool:
    if inviter.status != "active" or inviter.role == "member":
        return False
    return inviter.role == "owner" or invite.role != "owner"


def register_invite(raw: sqlite3.Connection, invite: InviteRow) -> bool:
    """Keep an invite; False when it was known, whose content then stays."""
    values = (
        invite.id,
        invite.mesh_id,
        invite.role,
        invite.created_by,
        invite.expires_at,
        invite.max_uses,
        invite.revoked_at,
    )
    return raw.execute(_Q["invite_register"], values).rowcount > 0


def insert_member(raw: sqlite3.Connection, member: Member) -> None:
    """Write a member, its key, and its subscription to the topic `all`."""
    values = (
        member.id,
        member.mesh_id,
        member.name,
        member.role,
        member.status,
        member.ed25519_pubkey,
        member.x25519_pubkey,
        member.x25519_signature,
        member.key_id,
        member.ephemeral,
        member.summary,
        member.presence_status,
        member.visible,
        member.created_at,
    )
    raw.execute(_Q["member_insert"], values)
    key = (member.key_id, member.mesh_id, member.id, member.ed25519_pubkey, member.x25519_pubkey)
    raw.execute(_Q["member_key_insert"], (*key, member.created_at))
    raw.execute(_Q["topic_subscribe"], (member.mesh_id, DEFAULT_TOPIC, member.id, member.created_at))


def read_members(raw: sqlite3.Connection, cursor: sqlite3.Cursor) -> list[Member]:
    """Return the members of a result, with their earlier keys."""
    names = [column[0] for column in cursor.description]
    rows: list[dict[str, Any]] = [dict(zip(names, row, strict=True)) for row in cursor]
    earlier: dict[str, list[str]] = {}
    if rows:
        ids = orjson.dumps([row["id"] for row in rows]).decode()
        for member_id, pubkey in raw.execute(_Q["earlier_keys"], (ids,)):
            earlier.setdefault(member_id, []).append(pubkey)
    return [
        Member(
            **{**row, "ephemeral": bool(row["ephemeral"]), "visible": bool(row["visible"])},
            earlier_pubkeys=tuple(earlier.get(row["id"], ())),
        )
        for row in rows
    ]
