"""Accepting sends and owing deliveries on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence

import orjson

from claudemesh.broker.store.sqlite.accept import accept_batch, find_dedupe
from claudemesh.broker.store.sqlite.queries import QUERIES as _Q
from claudemesh.broker.store.types import (
    Accepted,
    AcceptOutcome,
    Ack,
    DedupeRow,
    DueDelivery,
    Failed,
    NewSend,
    SendKey,
)
from claudemesh.runtime.errors import StorageError
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.sqlite import Database


class SqliteMessages:
    """Implements `MessageStore`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def lookup(self, keys: Collection[SendKey]) -> Mapping[SendKey, DedupeRow]:
        return await self._db.run(lambda raw: find_dedupe(raw, keys))

    async def accept(self, sends: Sequence[NewSend], now_ms: int) -> Sequence[AcceptOutcome]:
        try:
            return await self._accept(sends, now_ms)
        except StorageError:
            raise
        except sqlite3.Error as error:
            if len(sends) == 1:
                return [Failed(f"{type(error).__name__}: {error}")]
        outcomes: list[AcceptOutcome] = []
        for send in sends:
            outcomes += await self.accept([send], now_ms)
        return outcomes

    async def _accept(self, sends: Sequence[NewSend], now_ms: int) -> Sequence[AcceptOutcome]:
        def work(raw: sqlite3.Connection) -> Sequence[AcceptOutcome]:
            outcomes = accept_batch(raw, sends, now_ms)
            failpoint("accept.before_commit")
            return outcomes

        outcomes = await self._db.transaction(work)
        if any(isinstance(outcome, Accepted) for outcome in outcomes):
            failpoint("accept.after_commit")
        return outcomes

    async def deliveries_due(
        self, mesh_id: str, member_id: str, *, exclude: Collection[int], limit: int
    ) -> Sequence[DueDelivery]:
        values = (mesh_id, member_id, orjson.dumps(sorted(exclude)).decode(), limit)
        rows = await self._db.run(lambda raw: raw.execute(_Q["deliveries_due"], values).fetchall())
        return [DueDelivery(*row) for row in rows]

    async def acknowledge(self, acks: Sequence[Ack]) -> int:
        rows = [(number, ack.member_id, ack.mesh_id) for ack in acks for number in ack.delivery_ids]
        return await self._db.transaction(
            lambda raw: raw.executemany(_Q["acknowledge"], rows).rowcount if rows else 0
        )

    async def deliveries_pending(self) -> int:
        row = await self._db.run(lambda raw: raw.execute(_Q["deliveries_pending"]).fetchone())
        return int(row[0])

    async def deliveries_owed(self, member_ids: Collection[str], most: int) -> Mapping[str, int]:
        values = (orjson.dumps(list(member_ids)).decode(), most)
        return dict(await self._db.run(lambda raw: raw.execute(_Q["deliveries_owed"], values).fetchall()))
