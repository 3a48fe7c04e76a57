"""Keys of topics and queues on Postgres.

A transaction that writes wraps locks members first and the topic after them, as an act of a member does. An
act that comes second waits, and then marks what the first has written.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

from claudemesh.broker.store.postgres.members import read_members
from claudemesh.broker.store.postgres.pools import Pools
from claudemesh.broker.store.postgres.queries import QUERIES as _Q
from claudemesh.broker.store.postgres.statements import with_statements
from claudemesh.broker.store.postgres.values import key_bytes
from claudemesh.broker.store.topic_keys import (
    BATCH_TOPICS,
    HOUR_MS,
    EpochFacts,
    EpochMade,
    EpochRefused,
    EpochRow,
    KeyState,
    NewEpoch,
    TopicColumns,
    WrapRow,
    judge_epoch,
    key_state,
)
from claudemesh.broker.store.types import Member
from claudemesh.protocol.topic_keys import MAX_WRAPS_A_RECIPIENT
from claudemesh.runtime.failpoints import failpoint


class PostgresTopicKeys:
    """Implements `TopicKeyStore`."""

    def __init__(self, pools: Pools) -> None:
        self._db = pools

    async def state(
        self, mesh_id: str, topic: str, member_id: str, key_epochs: Collection[int]
    ) -> KeyState | None:
        async def work(connection: Any) -> KeyState | None:
            row = await connection.fetchrow(_Q["topic_key_state"], mesh_id, topic)
            columns = None if row is None else TopicColumns(*row)
            current = () if columns is None else (columns.current,)
            numbers = sorted({*current, *key_epochs})
            epochs = await connection.fetch(_Q["topic_epochs"], mesh_id, topic, numbers)
            wraps = await connection.fetch(_Q["topic_wraps"], mesh_id, topic, member_id, numbers)
            found = [WrapRow(one[0], one[1].hex(), one[2].hex(), *one[3:]) for one in wraps]
            return key_state(columns, map(_epoch_of, epochs), found)

        return await self._db.run(work)

    async def missing(self, mesh_id: str, topic: str, limit: int) -> Sequence[Member]:
        async def work(connection: Any) -> Sequence[Member]:
            rows = await read_members(connection, "topic_key_missing", mesh_id, topic, limit)
            return await with_statements(connection, rows)

        return await self._db.run(work)

    async def create(self, wish: NewEpoch) -> EpochMade | EpochRefused:
        made = await self._db.transaction(partial(_create, wish=wish))
        if isinstance(made, EpochMade):
            failpoint("topic_epoch.after_commit")
        return made

    async def add_wraps(
        self, mesh_id: str, topic: str, member_id: str, wraps: Sequence[WrapRow], most: int
    ) -> Sequence[str] | None:
        async def work(connection: Any) -> Sequence[str] | None:
            if not await connection.fetchval(_Q["member_hold"], mesh_id, member_id):
                return None
            keys = [key_bytes(wrap.recipient) for wrap in wraps]
            await connection.fetch(_Q["topic_wrap_recipients_hold"], mesh_id, keys)
            for number in {wrap.key_epoch for wrap in wraps}:
                if await connection.fetchval(_Q["topic_epoch_commitment"], mesh_id, topic, number) is None:
                    return None
            added = await _put_wraps(connection, mesh_id, topic, wraps, most, None)
            failpoint("topic_wraps.before_commit")
            return added

        return await self._db.transaction(work)

    async def want(self, mesh_id: str, topic: str) -> bool | None:
        rows = await self._db.fetch(_Q["topic_key_want"], mesh_id, topic)
        return rows[0][0] if rows else None

    async def wanted(self, mesh_id: str, member_id: str | None = None) -> Sequence[str]:
        if member_id is None:
            rows = await self._db.fetch(_Q["topic_keys_wanted"], mesh_id, BATCH_TOPICS)
        else:
            rows = await self._db.fetch(_Q["topic_keys_wanted_of"], mesh_id, member_id, BATCH_TOPICS)
        return [row[0] for row in rows]

    async def holders(
        self, mesh_id: str, topic: str, among: Collection[str], *, subscribed: bool = False
    ) -> Sequence[str]:
        rows = await self._db.fetch(_Q["topic_holders"], mesh_id, topic, sorted(among), subscribed)
        return [str(row[0]) for row in rows]

    async def audience(self, mesh_id: str, topic: str, among: Collection[str]) -> Sequence[str]:
        rows = await self._db.fetch(_Q["topic_key_audience"], mesh_id, topic, sorted(among))
        return [str(row[0]) for row in rows]

    async def waiting(self, mesh_id: str, topic: str) -> frozenset[int]:
        rows = await self._db.fetch(_Q["queue_epochs_waiting"], mesh_id, topic)
        return frozenset(row[0] for row in rows)

    async def is_owed(self, mesh_id: str, topic: str, member_id: str, key_epoch: int) -> bool:
        rows = await self._db.fetch(_Q["topic_key_owed"], mesh_id, topic, member_id, key_epoch)
        return bool(rows and rows[0][0])

    async def want_old(self, made_before: int) -> int:
        return await self._db.execute(_Q["topic_keys_old"], made_before, BATCH_TOPICS)

    async def sweep(self, window: int, made_before: int, most: int = BATCH_TOPICS) -> int:
        async def work(connection: Any) -> int:
            if not await connection.fetchval(_Q["job_lock"], "topic-keys"):
                return 0
            return await _sweep(connection, window, made_before, most)

        return await self._db.transaction(work, patient=True)


async def _create(connection: Any, *, wish: NewEpoch) -> EpochMade | EpochRefused:
    place, epoch = (wish.mesh_id, wish.topic), wish.epoch
    is_active = await connection.fetchval(_Q["member_hold"], wish.mesh_id, wish.member_id)
    current = await connection.fetchval(_Q["topic_key_lock"], *place)
    same = await connection.fetchval(_Q["topic_epoch_commitment"], *place, epoch.key_epoch)
    since = wish.lived_ms - HOUR_MS
    made = await connection.fetchval(_Q["topic_epochs_made"], wish.mesh_id, wish.member_id, since)
    refused = judge_epoch(wish, EpochFacts(current, bool(is_active), same, made))
    if refused is not None:
        return refused
    if same is None:
        await connection.execute(
            _Q["topic_epoch_insert"],
            *place,
            epoch.key_epoch,
            epoch.commitment,
            epoch.previous_commitment,
            key_bytes(epoch.created_by),
            epoch.signature,
            epoch.created_at,
            wish.member_id,
            wish.lived_ms,
        )
        failpoint("topic_epoch.after_insert")
        await connection.execute(_Q["topic_epoch_current"], *place, epoch.key_epoch, wish.lived_ms)
    recipients = await _put_wraps(connection, *place, wish.wraps, MAX_WRAPS_A_RECIPIENT, wish.member_id)
    failpoint("topic_epoch.before_commit")
    return EpochMade(epoch.key_epoch, tuple(recipients), same is None)


async def _put_wraps(
    connection: Any,
    mesh_id: str,
    topic: str,
    wraps: Sequence[WrapRow],
    most: int,
    maker_id: str | None,
) -> list[str]:
    # One statement cannot write a row twice.
    rows = {(wrap.key_epoch, wrap.recipient, wrap.wrapped_by): wrap for wrap in wraps}.values()
    found = await connection.fetch(
        _Q["topic_wraps_put"],
        mesh_id,
        topic,
        [wrap.key_epoch for wrap in rows],
        [key_bytes(wrap.recipient) for wrap in rows],
        [key_bytes(wrap.wrapped_by) for wrap in rows],
        [wrap.nonce for wrap in rows],
        [wrap.ciphertext for wrap in rows],
        [wrap.signature for wrap in rows],
        most,
        maker_id,
    )
    return list(dict.fromkeys(str(row[0]) for row in found))


async def _sweep(connection: Any, window: int, made_before: int, most: int) -> int:
    rows = await connection.fetch(_Q["topic_epochs_past"], window, made_before, most)
    for *place, is_stored in rows:
        await connection.execute(_Q["topic_wraps_delete" if is_stored else "topic_epoch_delete"], *place)
    return len(rows)


def _epoch_of(row: Sequence[Any]) -> EpochRow:
    return EpochRow(row[0], row[1], row[2], row[3].hex(), *row[4:])
