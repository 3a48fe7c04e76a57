"""Acts of members about members on Postgres, one transaction each (docs/spec/broker.md, Acts of members)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

from claudemesh.broker.store.acts import NAME_TAKEN, NOT_A_MEMBER, Acted, Parties, revocation_of, role_of
from claudemesh.broker.store.postgres.errors import TRANSIENT, UNIQUE_VIOLATION
from claudemesh.broker.store.postgres.members import read_members
from claudemesh.broker.store.postgres.pools import Pools
from claudemesh.broker.store.postgres.queries import QUERIES as _Q
from claudemesh.broker.store.postgres.statements import keep_statement, with_statements
from claudemesh.broker.store.types import Member
from claudemesh.protocol.authority import Refusal
from claudemesh.protocol.statements import Statement
from claudemesh.runtime.failpoints import failpoint

# Of two members that take one name at once the second finds that it is taken.
_RACED = TRANSIENT | {UNIQUE_VIOLATION}


class PostgresActs:
    """Implements `ActStore`."""

    def __init__(self, pools: Pools) -> None:
        self._db = pools

    async def rename(self, mesh_id: str, member_id: str, name: str) -> Acted | Refusal:
        return await self._run(partial(_rename, mesh_id=mesh_id, member_id=member_id, name=name))

    async def leave(self, mesh_id: str, member_id: str, *, force: bool) -> Acted | Refusal:
        return await self._run(partial(_leave, mesh_id=mesh_id, member_id=member_id, force=force))

    async def revoke(self, statement: Statement, by_id: str, *, force: bool) -> Acted | Refusal:
        return await self._run(partial(_revoke, statement=statement, by_id=by_id, force=force))

    async def give_role(self, statement: Statement, by_id: str, *, force: bool) -> Acted | Refusal:
        return await self._run(partial(_give_role, statement=statement, by_id=by_id, force=force))

    async def revocation(self, member: Member) -> str | None:
        [found] = await self._db.run(partial(with_statements, members=[member]))
        return revocation_of(found)

    async def _run(self, work: Callable[[Any], Awaitable[Acted | Refusal]]) -> Acted | Refusal:
        async def act(connection: Any) -> Acted | Refusal:
            outcome = await work(connection)
            failpoint("act.before_commit")
            return outcome

        outcome = await self._db.transaction(act, retried=_RACED)
        failpoint("act.after_commit")
        return outcome


async def _parties(connection: Any, mesh_id: str, by_id: str, subject_id: str) -> Parties:
    rows = await read_members(connection, "acting", mesh_id, by_id, subject_id)
    return Parties.of(rows, by_id, subject_id)


async def _rename(connection: Any, *, mesh_id: str, member_id: str, name: str) -> Acted | Refusal:
    member = (await _parties(connection, mesh_id, member_id, member_id)).by
    if member is None:
        return NOT_A_MEMBER
    if member.name == name:
        return Acted(member, member, has_changed=False)
    is_taken = await connection.fetchrow(_Q["member_by_name"], mesh_id, name) is not None
    if is_taken and member.name.lower() != name.lower():
        return NAME_TAKEN
    await connection.execute(_Q["member_rename"], name, mesh_id, member_id)
    return Acted(member, replace(member, name=name))


async def _leave(connection: Any, *, mesh_id: str, member_id: str, force: bool) -> Acted | Refusal:
    parties = await _parties(connection, mesh_id, member_id, member_id)
    refusal = parties.may_leave(force=force)
    if refusal is not None or parties.by is None:
        return refusal or NOT_A_MEMBER
    await connection.execute(_Q["member_set_status"], "left", mesh_id, member_id)
    return Acted(parties.by, replace(parties.by, status="left"))


async def _revoke(connection: Any, *, statement: Statement, by_id: str, force: bool) -> Acted | Refusal:
    parties = await _parties(connection, statement.mesh_id, by_id, statement.subject)
    refusal = parties.may_revoke(statement, force=force)
    if refusal is not None or parties.subject is None:
        return refusal or NOT_A_MEMBER
    await keep_statement(connection, statement, statement.subject)
    subject = parties.subject
    await connection.execute(_Q["member_set_status"], "revoked", statement.mesh_id, subject.id)
    return Acted(subject, replace(subject, status="revoked"), has_changed=subject.status != "revoked")


async def _give_role(connection: Any, *, statement: Statement, by_id: str, force: bool) -> Acted | Refusal:
    parties = await _parties(connection, statement.mesh_id, by_id, statement.subject)
    before_ms = await connection.fetchval(
        _Q["statement_at"], statement.subject, statement.kind, statement.subject
    )
    refusal = parties.may_give_role(statement, before_ms, force=force)
    if refusal is not None or parties.subject is None:
        return refusal or NOT_A_MEMBER
    subject, role = parties.subject, role_of(statement)
    if subject.role == role:
        return Acted(subject, subject, has_changed=False)
    await keep_statement(connection, statement, subject.id)
    await connection.execute(_Q["member_set_role"], role, statement.mesh_id, subject.id)
    return Acted(subject, replace(subject, role=role))
