"""Retention and its check on Postgres, batch by batch (docs/spec/broker.md, Retention and audits).

A message is as old as the newest `history_horizon` row that knows it: at that lived time it was there.

Crash story: a batch is one transaction. A message's body and history go together with its
tombstone and the mark on its dedupe row, or all of them stay. A lock of the job's name lets one broker work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from claudemesh.broker.store.decisions import (
    BATCH_ROWS,
    CHECK_STAGES,
    HistoryRow,
    dedupe_findings,
    next_position,
    past_retention,
    swept,
)
from claudemesh.broker.store.postgres.pools import Pools
from claudemesh.broker.store.postgres.queries import QUERIES as _Q
from claudemesh.broker.store.postgres.values import message_ulid
from claudemesh.broker.store.types import LATEST_COMMIT_MS, Absent, Checked, CheckPosition, Finding, Swept

_NIL = "00000000-0000-0000-0000-000000000000"
# The key below every key of a table; the tables that are not here have uuids.
_LOWEST: dict[str, tuple[Any, ...]] = {
    "check_dedupe": (_NIL, _NIL, ""),
    "check_history": (0,),
    "check_deliveries": (0,),
}


class PostgresRetention:
    """Implements `RetentionStore`."""

    def __init__(self, pools: Pools) -> None:
        self._db = pools

    async def sweep_messages(self, lived_ms: int, now_ms: int, after: int) -> Swept:
        async def work(connection: Any) -> Swept:
            if not await _is_ours(connection, "message-sweep"):
                return Swept(0, None)
            return await _sweep_messages(connection, lived_ms - LATEST_COMMIT_MS, now_ms, after)

        return await self._db.transaction(work, patient=True)

    async def sweep_dedupe(self, lived_ms: int) -> int:
        async def work(connection: Any) -> int:
            if not await _is_ours(connection, "dedupe-sweep"):
                return 0
            count: int = await connection.fetchval(_Q["forget_ids"], lived_ms - LATEST_COMMIT_MS, BATCH_ROWS)
            return count

        return await self._db.transaction(work, patient=True)

    async def absent_ephemerals(self, lived_ms: int) -> Sequence[Absent]:
        rows = await self._db.fetch(_Q["absent_ephemerals"], lived_ms, BATCH_ROWS)
        return [Absent(str(row[0]), str(row[1]), row[2]) for row in rows]

    async def reap_ephemeral(self, absent: Sequence[Absent], lived_ms: int) -> Sequence[tuple[str, str]]:
        columns = (
            [one.mesh_id for one in absent],
            [one.member_id for one in absent],
            [one.last_seen_at for one in absent],
        )
        rows = await self._db.fetch(_Q["reap_ephemeral"], *columns, lived_ms)
        return [(str(row[0]), str(row[1])) for row in rows]

    async def end_ephemerals(self, lived_ms: int) -> Sequence[tuple[str, str]]:
        rows = await self._db.fetch(_Q["end_ephemerals"], lived_ms, BATCH_ROWS)
        return [(str(row[0]), str(row[1])) for row in rows]

    async def check(self, position: CheckPosition | None) -> Checked:
        stage, after = position or (CHECK_STAGES[0], None)
        rows = await self._db.fetch(_Q[stage], *(after or _LOWEST.get(stage, (_NIL,))), BATCH_ROWS)
        if stage == "check_dedupe":
            findings = [finding for row in rows for finding in _judge(row)]
            last = tuple(rows[-1][:3]) if rows else ()
        else:
            kind = stage.replace("check", "orphan")
            findings = [Finding(kind, message_ulid(row[0])) for row in rows if not row[1]]
            last = (rows[-1][2],) if rows else ()
        return Checked(tuple(findings), len(rows), next_position(stage, last, len(rows)))


async def _sweep_messages(connection: Any, lived_ms: int, now_ms: int, after: int) -> Swept:
    found = await connection.fetch(_Q["retention"], lived_ms)
    limits: dict[Any, int] = {row[0]: row[1] for row in found}
    rows = [HistoryRow(*row) for row in await connection.fetch(_Q["history_after"], after, BATCH_ROWS)]
    if not rows:
        return Swept(0, None)
    old = past_retention(rows, limits)
    found = await connection.fetch(_Q["still_owed"], [row.message for row in old])
    owed = {row[0] for row in found}
    going = [row for row in old if row.message not in owed]
    if going:
        ids = [row.message for row in going]
        await connection.execute(_Q["sweep_bodies"], ids)
        await connection.execute(_Q["sweep_history"], [row.history_id for row in going], now_ms)
        meshes = [row.mesh for row in going]
        await connection.execute(_Q["history_prune"], meshes, [row.history_id for row in going])
        await connection.execute(_Q["sweep_periods"])
    return swept(rows, limits, len(going))


def _judge(row: Sequence[Any]) -> list[Finding]:
    available, has_body, has_history, has_tombstone = row[4:]
    return dedupe_findings(
        message_ulid(row[3]),
        available=available,
        has_body=has_body,
        has_history=has_history,
        has_tombstone=has_tombstone,
    )


async def _is_ours(connection: Any, job: str) -> bool:
    return bool(await connection.fetchval(_Q["job_lock"], job))
