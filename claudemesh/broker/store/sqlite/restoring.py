"""Repair after a restore from an older copy, on SQLite."""

from __future__ import annotations

import sqlite3

from claudemesh.broker.store.decisions import first_id_since, judge_put_back
from claudemesh.broker.store.sqlite.members import insert_member, read_taken
from claudemesh.broker.store.sqlite.queries import QUERIES as _Q
from claudemesh.broker.store.types import Joined, JoinRefused, Member
from claudemesh.runtime.sqlite import Database


class SqliteRestoring:
    """Implements `RestoreStore`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def put_back_member(self, member: Member, invite_id: str | None) -> Joined | JoinRefused:
        def work(raw: sqlite3.Connection) -> Joined | JoinRefused:
            outcome = judge_put_back(read_taken(raw, member))
            if outcome is not None:
                return outcome
            insert_member(raw, member)
            raw.execute(_Q["invite_take_late"], (member.mesh_id, invite_id))
            return Joined(member, created=True)

        return await self._db.transaction(work)

    async def sealing_key_taken(self, mesh_id: str, x25519_pubkey: str) -> bool:
        values = (mesh_id, x25519_pubkey)
        row = await self._db.run(lambda raw: raw.execute(_Q["sealing_key_taken"], values).fetchone())
        return row is not None

    async def backfill(
        self, mesh_id: str, topic: str, member_id: str, *, since_ms: int, limit: int, now_ms: int
    ) -> int:
        values = (mesh_id, topic, member_id, first_id_since(since_ms), now_ms, limit)

        def work(raw: sqlite3.Connection) -> int:
            raw.execute(_Q["history_reach"], values[:4])
            return raw.execute(_Q["topic_backfill"], values).rowcount

        return await self._db.transaction(work)
