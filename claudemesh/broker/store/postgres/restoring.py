"""Repair after a restore from an older copy, on Postgres."""

from __future__ import annotations

from typing import Any

from claudemesh.broker.store.decisions import first_id_since, judge_put_back
from claudemesh.broker.store.postgres.errors import TRANSIENT, UNIQUE_VIOLATION
from claudemesh.broker.store.postgres.members import insert_member, read_taken
from claudemesh.broker.store.postgres.pools import Pools
from claudemesh.broker.store.postgres.queries import QUERIES as _Q
from claudemesh.broker.store.postgres.values import key_bytes, message_uuid
from claudemesh.broker.store.types import Joined, JoinRefused, Member


class PostgresRestoring:
    """Implements `RestoreStore`. Of two brokers at once the second finds the first one's row."""

    def __init__(self, pools: Pools) -> None:
        self._db = pools

    async def put_back_member(self, member: Member, invite_id: str | None) -> Joined | JoinRefused:
        async def work(connection: Any) -> Joined | JoinRefused:
            outcome = judge_put_back(await read_taken(connection, member))
            if outcome is not None:
                return outcome
            await insert_member(connection, member)
            await connection.execute(_Q["invite_take_late"], member.mesh_id, invite_id)
            return Joined(member, created=True)

        return await self._db.transaction(work, retried=TRANSIENT | {UNIQUE_VIOLATION})

    async def sealing_key_taken(self, mesh_id: str, x25519_pubkey: str) -> bool:
        return bool(await self._db.fetch(_Q["sealing_key_taken"], mesh_id, key_bytes(x25519_pubkey)))

    async def backfill(
        self, mesh_id: str, topic: str, member_id: str, *, since_ms: int, limit: int, now_ms: int
    ) -> int:
        first = message_uuid(first_id_since(since_ms))
        await self._db.execute(_Q["history_reach"], mesh_id, topic, member_id, first)
        return await self._db.execute(_Q["topic_backfill"], mesh_id, topic, member_id, first, now_ms, limit)
