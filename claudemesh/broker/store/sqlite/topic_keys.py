"""Keys of topics and queues on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence

import orjson

from claudemesh.broker.store.sqlite.members import read_members
from claudemesh.broker.store.sqlite.queries import QUERIES as _Q
from claudemesh.broker.store.sqlite.statements import with_statements
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
from claudemesh.runtime.sqlite import Database


class SqliteTopicKeys:
    """Implements `TopicKeyStore`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def state(
        self, mesh_id: str, topic: str, member_id: str, key_epochs: Collection[int]
    ) -> KeyState | None:
        return await self._db.run(lambda raw: _state(raw, mesh_id, topic, member_id, key_epochs))

    async def missing(self, mesh_id: str, topic: str, limit: int) -> Sequence[Member]:
        def work(raw: sqlite3.Connection) -> Sequence[Member]:
            rows = read_members(raw, raw.execute(_Q["topic_key_missing"], (mesh_id, topic, limit)))
            return with_statements(raw, rows)

        return await self._db.run(work)

    async def create(self, wish: NewEpoch) -> EpochMade | EpochRefused:
        made = await self._db.transaction(lambda raw: _create(raw, wish))
        if isinstance(made, EpochMade):
            failpoint("topic_epoch.after_commit")
        return made

    async def add_wraps(
        self, mesh_id: str, topic: str, member_id: str, wraps: Sequence[WrapRow], most: int
    ) -> Sequence[str] | None:
        def work(raw: sqlite3.Connection) -> Sequence[str] | None:
            if raw.execute(_Q["member_is_active"], (mesh_id, member_id)).fetchone() is None:
                return None
            for number in {wrap.key_epoch for wrap in wraps}:
                if raw.execute(_Q["topic_epoch_commitment"], (mesh_id, topic, number)).fetchone() is None:
                    return None
            added = _put_wraps(raw, mesh_id, topic, wraps, most, None)
            failpoint("topic_wraps.before_commit")
            return added

        return await self._db.transaction(work)

    async def want(self, mesh_id: str, topic: str) -> bool | None:
        row = await self._db.transaction(
            lambda raw: raw.execute(_Q["topic_key_want"], (mesh_id, topic)).fetchone()
        )
        return None if row is None else bool(row[0])

    async def wanted(self, mesh_id: str, member_id: str | None = None) -> Sequence[str]:
        def work(raw: sqlite3.Connection) -> list[tuple[str]]:
            if member_id is None:
                return raw.execute(_Q["topic_keys_wanted"], (mesh_id, BATCH_TOPICS)).fetchall()
            return raw.execute(_Q["topic_keys_wanted_of"], (mesh_id, member_id, BATCH_TOPICS)).fetchall()

        rows = await self._db.run(work)
        return [row[0] for row in rows]

    async def holders(
        self, mesh_id: str, topic: str, among: Collection[str], *, subscribed: bool = False
    ) -> Sequence[str]:
        values = (mesh_id, topic, orjson.dumps(sorted(among)).decode(), subscribed)
        rows = await self._db.run(lambda raw: raw.execute(_Q["topic_holders"], values).fetchall())
        return [row[0] for row in rows]

    async def audience(self, mesh_id: str, topic: str, among: Collection[str]) -> Sequence[str]:
        values = (mesh_id, topic, orjson.dumps(sorted(among)).decode())
        rows = await self._db.run(lambda raw: raw.execute(_Q["topic_key_audience"], values).fetchall())
        return [row[0] for row in rows]

    async def waiting(self, mesh_id: str, topic: str) -> frozenset[int]:
        values = (mesh_id, topic)
        rows = await self._db.run(lambda raw: raw.execute(_Q["queue_epochs_waiting"], values).fetchall())
        return frozenset(row[0] for row in rows)

    async def is_owed(self, mesh_id: str, topic: str, member_id: str, key_epoch: int) -> bool:
        values = (mesh_id, topic, member_id, key_epoch)
        row = await self._db.run(lambda raw: raw.execute(_Q["topic_key_owed"], values).fetchone())
        return row is not None and bool(row[0])

    async def want_old(self, made_before: int) -> int:
        values = (made_before, BATCH_TOPICS)
        return await self._db.transaction(lambda raw: raw.execute(_Q["topic_keys_old"], values).rowcount)

    async def sweep(self, window: int, made_before: int, most: int = BATCH_TOPICS) -> int:
        return await self._db.transaction(lambda raw: _sweep(raw, window, made_before, most))


def _state(
    raw: sqlite3.Connection, mesh_id: str, topic: str, member_id: str, key_epochs: Collection[int]
) -> KeyState | None:
    row = raw.execute(_Q["topic_key_state"], (mesh_id, topic)).fetchone()
    columns = None if row is None else TopicColumns(row[0], row[1], bool(row[2]), row[3])
    current = () if columns is None else (columns.current,)
    numbers = orjson.dumps(sorted({*current, *key_epochs})).decode()
    epochs = [EpochRow(*one) for one in raw.execute(_Q["topic_epochs"], (mesh_id, topic, numbers))]
    wraps = [WrapRow(*one) for one in raw.execute(_Q["topic_wraps"], (mesh_id, topic, member_id, numbers))]
    return key_state(columns, epochs, wraps)


def _create(raw: sqlite3.Connection, wish: NewEpoch) -> EpochMade | EpochRefused:
    place, epoch = (wish.mesh_id, wish.topic), wish.epoch
    row = raw.execute(_Q["topic_key_state"], place).fetchone()
    same = raw.execute(_Q["topic_epoch_commitment"], (*place, epoch.key_epoch)).fetchone()
    since = wish.lived_ms - HOUR_MS
    facts = EpochFacts(
        None if row is None else row[1],
        raw.execute(_Q["member_is_active"], (wish.mesh_id, wish.member_id)).fetchone() is not None,
        None if same is None else same[0],
        raw.execute(_Q["topic_epochs_made"], (wish.mesh_id, wish.member_id, since)).fetchone()[0],
    )
    refused = judge_epoch(wish, facts)
    if refused is not None:
        return refused
    if same is None:
        raw.execute(
            _Q["topic_epoch_insert"],
            (
                *place,
                epoch.key_epoch,
                epoch.commitment,
                epoch.previous_commitment,
                epoch.created_by,
                epoch.signature,
                epoch.created_at,
                wish.member_id,
                wish.lived_ms,
            ),
        )
        failpoint("topic_epoch.after_insert")
        raw.execute(_Q["topic_epoch_current"], (*place, epoch.key_epoch, wish.lived_ms))
    recipients = _put_wraps(raw, *place, wish.wraps, MAX_WRAPS_A_RECIPIENT, wish.member_id)
    failpoint("topic_epoch.before_commit")
    return EpochMade(epoch.key_epoch, tuple(recipients), same is None)


def _put_wraps(
    raw: sqlite3.Connection,
    mesh_id: str,
    topic: str,
    wraps: Sequence[WrapRow],
    most: int,
    maker_id: str | None,
) -> list[str]:
    added: dict[str, None] = {}
    for wrap in wraps:
        values = (mesh_id, topic, *wrap, most, maker_id)
        for row in raw.execute(_Q["topic_wrap_put"], values).fetchall():
            added[row[0]] = None
    return list(added)


def _sweep(raw: sqlite3.Connection, window: int, made_before: int, most: int) -> int:
    rows = raw.execute(_Q["topic_epochs_past"], (window, made_before, most)).fetchall()
    for *place, is_stored in rows:
        raw.execute(_Q["topic_wraps_delete" if is_stored else "topic_epoch_delete"], place)
    return len(rows)
