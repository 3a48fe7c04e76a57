"""State that a restore from an older copy has lost is put back, on SQLite (`Restoring`)."""

from __future__ import annotations

import sqlite3

from claudemesh.broker.store.sqlite.members import insert_member, read_members
from claudemesh.broker.store.sqlite.queries import QUERIES as _Q
from claudemesh.broker.store.types import Joined, JoinRefused, Member, first_id_since
from claudemesh.runtime.sqlite import Database


class SqliteRestoring:
    """Implements `Restoring`: one transaction each."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def put_back_member(self, member: Member, invite_id: str | None) -> Joined | JoinRefused:
        """Write a member under the id that it had."""

        def work(raw: sqlite3.Connection) -> Joined | JoinRefused:
            mesh_id = member.mesh_id
            known = raw.execute(_Q["member_by_key"], (mesh_id, member.ed25519_pubkey))
            if again := read_members(raw, known):
                return Joined(again[0], created=False)
            if raw.execute(_Q["member_id_taken"], (member.id,)).fetchone() is not None:
                return JoinRefused("id_taken")
            if raw.execute(_Q["member_by_name"], (mesh_id, member.name)).fetchone() is not None:
                return JoinRefused("name_taken")
            if raw.execute(_Q["sealing_key_taken"], (mesh_id, member.x25519_pubkey)).fetchone() is not None:
                return JoinRefused("key_taken")
            insert_member(raw, member)
            raw.execute(_Q["invite_take_late"], (mesh_id, invite_id))
            return Joined(member, created=True)

        return await self._db.transaction(work)

    async def sealing_key_taken(self, mesh_id: str, x25519_pubkey: str) -> bool:
        """Look the key up among all that members have or had."""
        values = (mesh_id, x25519_pubkey)
        row = await self._db.run(lambda raw: raw.execute(_Q["sealing_key_taken"], values).fetchone())
        return row is not None

    async def backfill(
        self, mesh_id: str, topic: str, member_id: str, *, since_ms: int, limit: int, now_ms: int
    ) -> int:
        """Owe a member the newest posts to a topic since a moment that it is not owed yet."""
        first = first_id_since(since_ms)
        values = (mesh_id, topic, member_id, first, now_ms, limit)
        return await self._db.transaction(lambda raw: raw.execute(_Q["topic_backfill"], values).rowcount)
