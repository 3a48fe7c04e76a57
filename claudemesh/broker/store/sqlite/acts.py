"""Acts of members about members on SQLite, one transaction each (docs/spec/broker.md, Acts of members)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace

from claudemesh.broker.store.acts import NAME_TAKEN, NOT_A_MEMBER, Acted, Parties, revocation_of, role_of
from claudemesh.broker.store.sqlite.members import read_members
from claudemesh.broker.store.sqlite.queries import QUERIES as _Q
from claudemesh.broker.store.sqlite.statements import keep_statement, with_statements
from claudemesh.broker.store.types import Member
from claudemesh.protocol.authority import Refusal
from claudemesh.protocol.statements import Statement
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.sqlite import Database


class SqliteActs:
    """Implements `ActStore`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def rename(self, mesh_id: str, member_id: str, name: str) -> Acted | Refusal:
        return await self._run(lambda raw: _rename(raw, mesh_id, member_id, name))

    async def leave(self, mesh_id: str, member_id: str, *, force: bool) -> Acted | Refusal:
        return await self._run(lambda raw: _leave(raw, mesh_id, member_id, force))

    async def revoke(self, statement: Statement, by_id: str, *, force: bool) -> Acted | Refusal:
        return await self._run(lambda raw: _revoke(raw, statement, by_id, force))

    async def give_role(self, statement: Statement, by_id: str, *, force: bool) -> Acted | Refusal:
        return await self._run(lambda raw: _give_role(raw, statement, by_id, force))

    async def revocation(self, member: Member) -> str | None:
        [found] = await self._db.run(lambda raw: with_statements(raw, [member]))
        return revocation_of(found)

    async def _run(self, work: Callable[[sqlite3.Connection], Acted | Refusal]) -> Acted | Refusal:
        def act(raw: sqlite3.Connection) -> Acted | Refusal:
            outcome = work(raw)
            failpoint("act.before_commit")
            return outcome

        outcome = await self._db.transaction(act)
        failpoint("act.after_commit")
        return outcome


def _parties(raw: sqlite3.Connection, mesh_id: str, by_id: str, subject_id: str) -> Parties:
    rows = read_members(raw, raw.execute(_Q["acting"], (mesh_id, by_id, subject_id)))
    return Parties.of(rows, by_id, subject_id)


def _rename(raw: sqlite3.Connection, mesh_id: str, member_id: str, name: str) -> Acted | Refusal:
    member = _parties(raw, mesh_id, member_id, member_id).by
    if member is None:
        return NOT_A_MEMBER
    if member.name == name:
        return Acted(member, member, has_changed=False)
    is_taken = raw.execute(_Q["member_by_name"], (mesh_id, name)).fetchone() is not None
    if is_taken and member.name.lower() != name.lower():
        return NAME_TAKEN
    raw.execute(_Q["member_rename"], (name, mesh_id, member_id))
    return Acted(member, replace(member, name=name))


def _leave(raw: sqlite3.Connection, mesh_id: str, member_id: str, force: bool) -> Acted | Refusal:
    parties = _parties(raw, mesh_id, member_id, member_id)
    refusal = parties.may_leave(force=force)
    if refusal is not None or parties.by is None:
        return refusal or NOT_A_MEMBER
    raw.execute(_Q["member_set_status"], ("left", mesh_id, member_id))
    return Acted(parties.by, replace(parties.by, status="left"))


def _revoke(raw: sqlite3.Connection, statement: Statement, by_id: str, force: bool) -> Acted | Refusal:
    parties = _parties(raw, statement.mesh_id, by_id, statement.subject)
    refusal = parties.may_revoke(statement, force=force)
    if refusal is not None or parties.subject is None:
        return refusal or NOT_A_MEMBER
    keep_statement(raw, statement, statement.subject)
    subject = parties.subject
    raw.execute(_Q["member_set_status"], ("revoked", statement.mesh_id, subject.id))
    return Acted(subject, replace(subject, status="revoked"), has_changed=subject.status != "revoked")


def _give_role(raw: sqlite3.Connection, statement: Statement, by_id: str, force: bool) -> Acted | Refusal:
    parties = _parties(raw, statement.mesh_id, by_id, statement.subject)
    row = raw.execute(_Q["statement_at"], (statement.subject, statement.kind, statement.subject)).fetchone()
    refusal = parties.may_give_role(statement, None if row is None else row[0], force=force)
    if refusal is not None or parties.subject is None:
        return refusal or NOT_A_MEMBER
    subject, role = parties.subject, role_of(statement)
    if subject.role == role:
        return Acted(subject, subject, has_changed=False)
    keep_statement(raw, statement, subject.id)
    raw.execute(_Q["member_set_role"], (role, statement.mesh_id, subject.id))
    return Acted(subject, replace(subject, role=role))
