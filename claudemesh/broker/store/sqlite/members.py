"""Members and invites on SQLite: an invite's use is taken with the member's row, or not at all."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import orjson

from claudemesh.broker.store.decisions import Taken, judge_join, may_invite, name_cursor
from claudemesh.broker.store.sqlite.queries import QUERIES as _Q
from claudemesh.broker.store.sqlite.statements import keep_statements_of
from claudemesh.broker.store.types import DEFAULT_TOPIC, InviteRow, Joined, JoinRefused, Member, MemberStatus
from claudemesh.protocol.ids import HEX_32, MEMBER_NAME, UUID_TEXT
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.sqlite import Database


class SqliteMembers:
    """Implements `MemberStore`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def by_key(self, mesh_id: str, pubkey: str) -> Member | None:
        found = await self._read("member_current_by_key", mesh_id, pubkey)
        return found[0] if found else None

    async def by_any_key(self, mesh_id: str, pubkey: str) -> Member | None:
        found = await self._read("member_by_key", mesh_id, pubkey)
        return found[0] if found else None

    async def find(self, mesh_id: str, wanted: str) -> Member | None:
        for query, form in (
            ("member_by_key", HEX_32),
            ("member_of_id", UUID_TEXT),
            ("member_named", MEMBER_NAME),
        ):
            if form.fullmatch(wanted):
                found = await self._read(query, mesh_id, wanted)
                if found and (query != "member_by_key" or found[0].ed25519_pubkey == wanted):
                    return found[0]
        return None

    async def all(self, mesh_id: str) -> Sequence[Member]:
        return await self._read("member_list", mesh_id)

    async def page(self, mesh_id: str, after: str, limit: int) -> Sequence[Member]:
        return await self._read("members_by_name", mesh_id, *name_cursor(after), limit)

    async def privileged(self, mesh_id: str) -> Sequence[str]:
        rows = await self._db.run(lambda raw: raw.execute(_Q["members_privileged"], (mesh_id,)).fetchall())
        return [row[0] for row in rows]

    async def set_profile(
        self,
        mesh_id: str,
        member_id: str,
        *,
        summary: str | None = None,
        status: str | None = None,
        visible: bool | None = None,
        sessions: str | None = None,
    ) -> None:
        values = (summary, status, visible, sessions, mesh_id, member_id)
        await self._db.transaction(lambda raw: raw.execute(_Q["member_set_profile"], values))

    async def set_status(self, mesh_id: str, member_id: str, status: MemberStatus) -> bool:
        values = (status, mesh_id, member_id)
        return await self._db.transaction(
            lambda raw: raw.execute(_Q["member_set_status"], values).rowcount > 0
        )

    async def register_invite(self, invite: InviteRow) -> bool:
        return await self._db.transaction(lambda raw: register_invite(raw, invite))

    async def forget_invites(self, mesh_id: str, pubkey: str, now_ms: int, keep: int) -> int:
        values = (mesh_id, pubkey, now_ms, keep)
        return await self._db.transaction(lambda raw: raw.execute(_Q["invites_forget"], values).rowcount)

    async def revoke_invite(self, mesh_id: str, invite_id: str, now_ms: int) -> None:
        values = (now_ms, mesh_id, invite_id)
        await self._db.transaction(lambda raw: raw.execute(_Q["invite_revoke"], values))

    async def invites(self, mesh_id: str, *, after: str = "", limit: int = 1000) -> Sequence[InviteRow]:
        values = (mesh_id, after, limit)
        rows = await self._db.run(lambda raw: raw.execute(_Q["invite_list"], values).fetchall())
        return [InviteRow(*row) for row in rows]

    async def join(self, invite: InviteRow, member: Member, now_ms: int) -> Joined | JoinRefused:
        def work(raw: sqlite3.Connection) -> Joined | JoinRefused:
            outcome = join_member(raw, invite, member, now_ms)
            if isinstance(outcome, JoinRefused):
                raise _Rejected(outcome)
            failpoint("act.before_commit")
            return outcome

        try:
            joined = await self._db.transaction(work)
        except _Rejected as rejected:
            return rejected.outcome
        failpoint("act.after_commit")
        return joined

    async def _read(self, query: str, *values: object) -> Sequence[Member]:
        return await self._db.run(lambda raw: read_members(raw, raw.execute(_Q[query], values)))


class _Rejected(Exception):
    """Rolls a join back and carries why."""

    def __init__(self, outcome: JoinRefused) -> None:
        super().__init__(outcome.error)
        self.outcome = outcome


def join_member(
    raw: sqlite3.Connection, invite: InviteRow, member: Member, now_ms: int
) -> Joined | JoinRefused:
    """Take one use of an invite and write the member, inside the caller's transaction.

    A refusal has to be rolled back: the invite may have been registered before.
    """
    mesh_id = invite.mesh_id
    # An invite that was registered before its inviter has rotated its keys stays good.
    is_registered = raw.execute(_Q["invite_get"], (mesh_id, invite.id)).fetchone() is not None
    query = "member_by_key" if is_registered else "member_current_by_key"
    inviters = read_members(raw, raw.execute(_Q[query], (mesh_id, invite.created_by)))
    if not inviters or not may_invite(inviters[0].status, inviters[0].role, invite.role):
        return JoinRefused("not_authorized")
    register_invite(raw, invite)
    registered = InviteRow(*raw.execute(_Q["invite_get"], (mesh_id, invite.id)).fetchone())
    outcome = judge_join(registered, member, read_taken(raw, member), now_ms)
    if outcome is not None:
        return outcome
    if raw.execute(_Q["invite_take"], (mesh_id, invite.id, now_ms)).rowcount == 0:
        return JoinRefused("invite_exhausted")
    insert_member(raw, member)
    return Joined(member, created=True)


def read_taken(raw: sqlite3.Connection, member: Member) -> Taken:
    """Return what a new member would collide with."""
    mesh_id = member.mesh_id

    def is_there(query: str, *values: object) -> bool:
        return raw.execute(_Q[query], values).fetchone() is not None

    same_key = read_members(raw, raw.execute(_Q["member_by_key"], (mesh_id, member.ed25519_pubkey)))
    return Taken(
        same_key=same_key[0] if same_key else None,
        sealing_key=is_there("sealing_key_taken", mesh_id, member.x25519_pubkey),
        name=member.status == "active" and is_there("member_by_name", mesh_id, member.name),
        member_id=is_there("member_id_taken", member.id),
    )


def register_invite(raw: sqlite3.Connection, invite: InviteRow) -> bool:
    """Write an invite. False: it was known, and its content stays."""
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
        member.ends_lived_ms,
    )
    raw.execute(_Q["member_insert"], values)
    key = (member.key_id, member.mesh_id, member.id, member.ed25519_pubkey, member.x25519_pubkey)
    raw.execute(_Q["member_key_insert"], (*key, member.created_at))
    raw.execute(_Q["topic_subscribe"], (member.mesh_id, DEFAULT_TOPIC, member.id, member.created_at))
    keep_statements_of(raw, member)


def read_members(raw: sqlite3.Connection, cursor: sqlite3.Cursor) -> list[Member]:
    """Return the members of a result, with their earlier keys."""
    names = [column[0] for column in cursor.description]
    rows: list[dict[str, Any]] = [dict(zip(names, row, strict=True)) for row in cursor]
    earlier: dict[str, list[str]] = {}
    rotations: dict[str, list[str]] = {}
    if rows:
        ids = orjson.dumps([row["id"] for row in rows]).decode()
        for member_id, pubkey, statement in raw.execute(_Q["earlier_keys"], (ids,)):
            earlier.setdefault(member_id, []).append(pubkey)
            if statement is not None:
                rotations.setdefault(member_id, []).append(statement)
    return [
        Member(
            **{**row, "ephemeral": bool(row["ephemeral"]), "visible": bool(row["visible"])},
            earlier_pubkeys=tuple(earlier.get(row["id"], ())),
            rotations=tuple(rotations.get(row["id"], ())),
        )
        for row in rows
    ]
