"""Statements that entries of the member list carry, on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

import orjson

from claudemesh.broker.store.sqlite.queries import QUERIES as _Q
from claudemesh.broker.store.types import Member
from claudemesh.protocol.statements import MAX_STATEMENTS, Statement


def keep_statements_of(raw: sqlite3.Connection, member: Member) -> None:
    """Let a new member carry its statements, and those by which their subjects had replaced others."""
    for body in member.statements:
        statement = Statement.parse(orjson.loads(body))
        keep_statement(raw, statement, member.id)
        raw.execute(_Q["statement_inherit"], (member.id, statement.subject))


def keep_statement(raw: sqlite3.Connection, statement: Statement, member_id: str) -> None:
    """Let the entry of a member carry a statement, unless it carries a later one of its kind."""
    body = orjson.dumps(statement.to_dict()).decode()
    values = (statement.mesh_id, member_id, statement.kind, statement.subject, statement.at_ms, body)
    raw.execute(_Q["statement_keep"], values)


def with_statements(raw: sqlite3.Connection, members: Sequence[Member]) -> list[Member]:
    """Return members with the statements that their entries carry, the latest first."""
    found: dict[str, list[str]] = {}
    if members:
        ids = orjson.dumps([one.id for one in members]).decode()
        for member_id, body in raw.execute(_Q["statements"], (ids,)):
            found.setdefault(member_id, []).append(body)
    if not found:
        return list(members)
    return [replace(one, statements=tuple(found.get(one.id, ())[:MAX_STATEMENTS])) for one in members]
