"""Statements that entries of the member list carry, on Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson

from claudemesh.broker.store.postgres.queries import QUERIES as _Q
from claudemesh.broker.store.types import Member
from claudemesh.protocol.statements import MAX_STATEMENTS, Statement


async def keep_statements_of(connection: Any, member: Member) -> None:
    """Let a new member carry its statements, and those by which their subjects had replaced others."""
    for body in member.statements:
        statement = Statement.parse(orjson.loads(body))
        await keep_statement(connection, statement, member.id)
        await connection.execute(_Q["statement_inherit"], member.id, statement.subject)


async def keep_statement(connection: Any, statement: Statement, member_id: str) -> None:
    """Let the entry of a member carry a statement, unless it carries a later one of its kind."""
    body = orjson.dumps(statement.to_dict()).decode()
    values = (statement.mesh_id, member_id, statement.kind, statement.subject, statement.at_ms, body)
    await connection.execute(_Q["statement_keep"], *values)


async def with_statements(connection: Any, members: Sequence[Member]) -> list[Member]:
    """Return members with the statements that their entries carry, the latest first."""
    found: dict[str, list[str]] = {}
    if members:
        for member_id, body in await connection.fetch(_Q["statements"], [one.id for one in members]):
            found.setdefault(str(member_id), []).append(body)
    if not found:
        return list(members)
    return [replace(one, statements=tuple(found.get(one.id, ())[:MAX_STATEMENTS])) for one in members]
