"""Accepting sends and owing deliveries on Postgres."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import asyncpg

from claudemesh.broker.store.postgres.accept import (
    arguments,
    arguments_of_one,
    dedupe_of,
    follow,
    outcomes_of,
)
from claudemesh.broker.store.postgres.errors import QUERY_CANCELED, state_of, text_of
from claudemesh.broker.store.postgres.known_server import KnownServer
from claudemesh.broker.store.postgres.pools import Pools, committing_in_full
from claudemesh.broker.store.postgres.queries import QUERIES as _Q
from claudemesh.broker.store.postgres.values import due_of
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
from claudemesh.runtime.errors import StorageError, StorageUnreachable
from claudemesh.runtime.failpoints import failpoint


class PostgresMessages:
    """Implements `MessageStore`."""

    def __init__(self, pools: Pools, server: KnownServer) -> None:
        self._db = pools
        self._server = server

    async def lookup(self, keys: Collection[SendKey]) -> Mapping[SendKey, DedupeRow]:
        columns = (
            [key.mesh_id for key in keys],
            [key.sender_member_id for key in keys],
            [key.client_message_id for key in keys],
        )
        rows = await self._db.fetch(_Q["dedupe_find"], *columns, accepting=True)
        return dict(dedupe_of(row) for row in rows)

    async def accept(self, sends: Sequence[NewSend], now_ms: int) -> Sequence[AcceptOutcome]:
        outcomes: dict[int, AcceptOutcome] = {}
        # The function wants keys that differ: a second send of a key follows the first, or tries after it.
        queues: dict[SendKey, deque[int]] = {}
        for index, send in enumerate(sends):
            queues.setdefault(send.key, deque()).append(index)
        while queues:
            heads = [queue.popleft() for queue in queues.values()]
            found = await self._accept([sends[head] for head in heads], now_ms)
            for head, outcome in zip(heads, found, strict=True):
                outcomes[head] = outcome
                queue = queues[sends[head].key]
                while queue and (same := follow(sends[head], outcome, sends[queue[0]])):
                    outcomes[queue.popleft()] = same
            queues = {key: queue for key, queue in queues.items() if queue}
        return [outcomes[index] for index in range(len(sends))]

    async def _accept(self, sends: Sequence[NewSend], now_ms: int) -> Sequence[AcceptOutcome]:
        try:
            outcomes = await self._accept_at_once(sends, now_ms)
        except StorageError as error:
            # Rolled back, for it took too long: it may have been too many recipients at once.
            if len(sends) == 1 or state_of(error.__cause__) != QUERY_CANCELED:
                raise
            return await self._accept_in_parts(sends, now_ms, len(sends) // 2)
        except (asyncpg.PostgresError, ValueError) as error:
            if len(sends) == 1:
                return [Failed(f"{type(error).__name__}: {text_of(error)}")]
            return await self._accept_in_parts(sends, now_ms, 1)
        if any(isinstance(outcome, Accepted) for outcome in outcomes):
            failpoint("accept.after_commit")
        return outcomes

    async def _accept_in_parts(
        self, sends: Sequence[NewSend], now_ms: int, size: int
    ) -> Sequence[AcceptOutcome]:
        outcomes: list[AcceptOutcome] = []
        for start in range(0, len(sends), size):
            outcomes += await self._accept(sends[start : start + size], now_ms)
        return outcomes

    async def _accept_at_once(self, sends: Sequence[NewSend], now_ms: int) -> Sequence[AcceptOutcome]:
        one = arguments_of_one(sends[0], now_ms) if len(sends) == 1 else None

        async def work(connection: Any) -> Sequence[Any]:
            rows: Sequence[Any] = ()
            with committing_in_full(connection):
                if one is not None:
                    rows = await connection.fetch(_Q["accept_dm"], *one, self._server.known)
                if not rows:
                    values = arguments(sends, now_ms)
                    rows = await connection.fetch(_Q["accept"], *values, self._server.known)
            return rows

        rows = await self._db.run(work, accepting=True)
        if not rows:
            self._server.differs.set()
            raise StorageUnreachable("the database's server was started again: its data is compared first")
        return outcomes_of(rows, sends, now_ms)

    async def deliveries_due(
        self, mesh_id: str, member_id: str, *, exclude: Collection[int], limit: int
    ) -> Sequence[DueDelivery]:
        rows = await self._db.fetch(_Q["deliveries_due"], mesh_id, member_id, list(exclude), limit)
        return [due_of(row) for row in rows]

    async def acknowledge(self, acks: Sequence[Ack]) -> int:
        # In one order everywhere, so that two brokers do not lock one another out.
        rows = sorted((number, ack.member_id, ack.mesh_id) for ack in acks for number in ack.delivery_ids)
        if not rows:
            return 0
        columns = [list(column) for column in zip(*rows, strict=True)]
        return await self._db.execute(_Q["acknowledge"], *columns, accepting=True)

    async def deliveries_pending(self) -> int:
        [row] = await self._db.fetch(_Q["deliveries_pending"])
        return int(row[0])

    async def deliveries_owed(self, member_ids: Collection[str], most: int) -> Mapping[str, int]:
        rows = await self._db.fetch(_Q["deliveries_owed"], list(member_ids), most)
        return {str(row[0]): row[1] for row in rows}
