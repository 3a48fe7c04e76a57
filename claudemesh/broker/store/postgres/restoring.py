"""State that a restore from an older copy has lost is put back, on Postgres (`Restoring`)."""

from __future__ import annotations

from typing import Any

from claudemesh.broker.store.postgres.errors import TRANSIENT, UNIQUE_VIOLATION
from claudemesh.broker.store.postgres.members import insert_member, members_by_key
from claudemesh.broker.store.postgres.pools import Pools
from claudemesh.broker.store.postgres.queries import QUERIES as _Q
from claudemesh.broker.store.postgres.values import key_bytes, message_uuid
from claudemesh.broker.store.types import Joined, JoinRefused, Member, first_id_since


class PostgresRestoring:
    """Implements `Restoring`: one transaction each. Two brokers at once: the second finds the first's row."""

    def __init__(self, pools: Pools) -> None:
        self._db = pools

    async def put_back_member(self, member: Member, invite_id: str | None) -> Joined | JoinRefused:
        """Write a member under the id that it had."""

        async def work(connection: Any) -> Joined | JoinRefused:
            mesh_id = member.mesh_id
            again = await members_by_key(connection, "member_by_key", mesh_id, member.ed25519_pubkey)
            if again:
                return Joined(again[0], created=False)
            if await connection.fetchrow(_Q["member_id_taken"], member.id) is not None:
                return JoinRefused("id_taken")
            if await connection.fetchrow(_Q["member_by_name"], mesh_id, member.name) is not None:
                return JoinRefused("name_taken")
            sealing_key = key_bytes(member.x25519_pubkey)
            if await connection.fetchrow(_Q["sealing_key_taken"], mesh_id, sealing_key) is not None:
                return JoinRefused("key_taken")
            await insert_member(connection, member)
            await connection.execute(_Q["invite_take_late"], mesh_id, invite_id)
            return Joined(member, created=True)

        return await self._db.transaction(work, retried=TRANSIENT | {UNIQUE_VIOLATION})

    async def sealing_key_taken(self, mesh_id: str, x25519_pubkey: str) -> bool:
        """Look the key up among all that members have or had."""
        return bool(await self._db.fetch(_Q["sealing_key_taken"], mesh_id, key_bytes(x25519_pubkey)))

    async def backfill(
        self, mesh_id: str, topic: str, member_id: str, *, since_ms: int, limit: int, now_ms: int
    ) -> int:
        """Owe a member the newest posts to a topic since a moment that it is not owed yet."""
        first = message_uuid(first_id_since(since_ms))
        return await self._db.execute(_Q["topic_backfill"], mesh_id, topic, member_id, first, now_ms, limit)
