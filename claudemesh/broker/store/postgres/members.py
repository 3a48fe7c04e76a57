"""Members and invites on Postgres: an invite's use is taken with the member's row, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from claudemesh.broker.store.decisions import Taken, judge_join, may_invite, name_cursor
from claudemesh.broker.store.postgres.errors import TRANSIENT, UNIQUE_VIOLATION
from claudemesh.broker.store.postgres.pools import Pools
from claudemesh.broker.store.postgres.queries import QUERIES as _Q
from claudemesh.broker.store.postgres.statements import keep_statements_of
from claudemesh.broker.store.postgres.values import invite_of, key_bytes, members_of
from claudemesh.broker.store.types import DEFAULT_TOPIC, InviteRow, Joined, JoinRefused, Member, MemberStatus
from claudemesh.protocol.ids import HEX_32, MEMBER_NAME, UUID_TEXT
from claudemesh.runtime.failpoints import failpoint

# A transaction that lost a race for a unique key finds the winner's row when it runs again.
RACED = TRANSIENT | {UNIQUE_VIOLATION}


class PostgresMembers:
    """Implements `MemberStore`."""

    def __init__(self, pools: Pools) -> None:
        self._db = pools

    async def by_key(self, mesh_id: str, pubkey: str) -> Member | None:
        found = await self._read("member_current_by_key", mesh_id, key_bytes(pubkey))
        return found[0] if found else None

    async def by_any_key(self, mesh_id: str, pubkey: str) -> Member | None:
        found = await self._read("member_by_key", mesh_id, key_bytes(pubkey))
        return found[0] if found else None

    async def find(self, mesh_id: str, wanted: str) -> Member | None:
        if HEX_32.fullmatch(wanted):
            found = await self.by_any_key(mesh_id, wanted)
            if found is not None and found.ed25519_pubkey == wanted:
                return found
        for query, form in (("member_of_id", UUID_TEXT), ("member_named", MEMBER_NAME)):
            if form.fullmatch(wanted):
                rows = await self._read(query, mesh_id, wanted)
                if rows:
                    return rows[0]
        return None

    async def all(self, mesh_id: str) -> Sequence[Member]:
        return await self._read("member_list", mesh_id)

    async def page(self, mesh_id: str, after: str, limit: int) -> Sequence[Member]:
        return await self._read("members_by_name", mesh_id, *name_cursor(after), limit)

    async def privileged(self, mesh_id: str) -> Sequence[str]:
        return [str(row[0]) for row in await self._db.fetch(_Q["members_privileged"], mesh_id)]

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
        await self._db.execute(_Q["member_set_profile"], *values)

    async def set_status(self, mesh_id: str, member_id: str, status: MemberStatus) -> bool:
        return await self._db.execute(_Q["member_set_status"], status, mesh_id, member_id) > 0

    async def register_invite(self, invite: InviteRow) -> bool:
        return await self._db.run(lambda connection: register_invite(connection, invite))

    async def forget_invites(self, mesh_id: str, pubkey: str, now_ms: int, keep: int) -> int:
        return await self._db.execute(_Q["invites_forget"], mesh_id, key_bytes(pubkey), now_ms, keep)

    async def revoke_invite(self, mesh_id: str, invite_id: str, now_ms: int) -> None:
        await self._db.execute(_Q["invite_revoke"], now_ms, mesh_id, invite_id)

    async def invites(self, mesh_id: str, *, after: str = "", limit: int = 1000) -> Sequence[InviteRow]:
        rows = await self._db.fetch(_Q["invite_list"], mesh_id, after, limit)
        return [invite_of(row) for row in rows]

    async def join(self, invite: InviteRow, member: Member, now_ms: int) -> Joined | JoinRefused:
        async def work(connection: Any) -> Joined:
            outcome = await join_member(connection, invite, member, now_ms)
            failpoint("act.before_commit")
            return outcome

        try:
            joined = await self._db.transaction(work, retried=RACED)
        except _Rejected as rejected:
            return rejected.outcome
        failpoint("act.after_commit")
        return joined

    async def _read(self, query: str, mesh_id: str, *values: object) -> Sequence[Member]:
        return await self._db.run(lambda connection: read_members(connection, query, mesh_id, *values))


class _Rejected(Exception):
    """Rolls a join back and carries why."""

    def __init__(self, outcome: JoinRefused) -> None:
        super().__init__(outcome.error)
        self.outcome = outcome


async def join_member(connection: Any, invite: InviteRow, member: Member, now_ms: int) -> Joined:
    """Take one use of an invite and write the member, inside the caller's transaction. Raises `_Rejected`."""
    mesh_id = invite.mesh_id
    # An invite that was registered before its inviter has rotated its keys stays good.
    is_registered = await connection.fetchrow(_Q["invite_lock"], mesh_id, invite.id) is not None
    query = "earlier_inviter_lock" if is_registered else "inviter_lock"
    inviter = await connection.fetchrow(_Q[query], mesh_id, key_bytes(invite.created_by))
    if inviter is None or not may_invite(inviter["status"], inviter["role"], invite.role):
        raise _Rejected(JoinRefused("not_authorized"))
    await register_invite(connection, invite)
    # The row lock lets joins by one invite run one after the other.
    row = await connection.fetchrow(_Q["invite_lock"], mesh_id, invite.id)
    # An expired one may have been deleted just now.
    registered = invite if row is None else invite_of(row)
    outcome = judge_join(registered, member, await read_taken(connection, member), now_ms)
    if isinstance(outcome, JoinRefused):
        raise _Rejected(outcome)
    if outcome is not None:
        return outcome
    if await connection.execute(_Q["invite_take"], mesh_id, invite.id, now_ms) != "UPDATE 1":
        raise _Rejected(JoinRefused("invite_exhausted"))
    await insert_member(connection, member)
    return Joined(member, created=True)


async def read_taken(connection: Any, member: Member) -> Taken:
    """Return what a new member would collide with."""
    mesh_id = member.mesh_id

    async def is_there(query: str, *values: object) -> bool:
        return await connection.fetchrow(_Q[query], *values) is not None

    same_key = await read_members(connection, "member_by_key", mesh_id, key_bytes(member.ed25519_pubkey))
    return Taken(
        same_key=same_key[0] if same_key else None,
        sealing_key=await is_there("sealing_key_taken", mesh_id, key_bytes(member.x25519_pubkey)),
        name=member.status == "active" and await is_there("member_by_name", mesh_id, member.name),
        member_id=await is_there("member_id_taken", member.id),
    )


async def register_invite(connection: Any, invite: InviteRow) -> bool:
    """Write an invite. False: it was known, and its content stays."""
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


async def read_members(connection: Any, query: str, mesh_id: str, *values: object) -> list[Member]:
    """Return the members that a query finds, each with its rotated-out keys."""
    rows = await connection.fetch(_Q[query], mesh_id, *values)
    earlier = await connection.fetch(_Q["earlier_keys"], mesh_id, [row["id"] for row in rows]) if rows else ()
    return members_of(rows, earlier)


async def insert_member(connection: Any, member: Member) -> None:
    """Write a member, its key, and its subscription to the topic `all`."""
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
        member.ends_lived_ms,
    )
    await connection.execute(
        _Q["member_key_insert"], member.key_id, member.mesh_id, member.id, *keys, member.created_at
    )
    await connection.execute(
        _Q["topic_subscribe"], member.mesh_id, DEFAULT_TOPIC, member.id, member.created_at
    )
    await keep_statements_of(connection, member)
