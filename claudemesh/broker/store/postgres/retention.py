"""Retention and its check on Postgres, batch by batch (broker.md, Retention and audits).

A message is as old as the newest `history_horizon` row that knows it: at that lived time it was there.

Crash story: a batch is one transaction. A message's body, history and mentions go together with its
tombstone and the mark on its id, or all of them stay. A lock of the job's name lets one broker work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from claudemesh.broker.store.postgres.pools import Pools
from claudemesh.broker.store.postgres.queries import QUERIES as _Q
from claudemesh.broker.store.postgres.values import message_ulid
from claudemesh.broker.store.types import LATEST_COMMIT_MS, Absent, Checked, CheckPosition, Finding, Swept

_BATCH = 500
_NIL = "00000000-0000-0000-0000-000000000000"
# Each table, and where its keys begin.
STAGES: dict[str, tuple[Any, ...]] = {
    "check_dedupe": (_NIL, _NIL, ""),
    "check_queue_bodies": (_NIL,),
    "check_topic_bodies": (_NIL,),
    "check_history": (0,),
    "check_deliveries": (0,),
    "check_mentions": (_NIL,),
}


async def sweep_messages(pools: Pools, lived_ms: int, now_ms: int, after: int) -> Swept:
    """Delete messages that were kept for their mesh's retention of lived time and that nobody is owed.

    They go in the order of their acceptance.
    """

    async def work(connection: Any) -> Swept:
        if not await _is_ours(connection, "message-sweep"):
            return Swept(0, None)
        found = await connection.fetch(_Q["retention"], lived_ms - LATEST_COMMIT_MS)
        limits: dict[Any, int] = {row[0]: row[1] for row in found}
        rows = await connection.fetch(_Q["history_after"], after, _BATCH)
        if not rows:
            return Swept(0, None)
        old = [row for row in rows if row[0] <= limits.get(row[2], 0)]
        found = await connection.fetch(_Q["still_owed"], [row[1] for row in old])
        owed = {row[0] for row in found}
        going = [row for row in old if row[1] not in owed]
        if going:
            ids = [row[1] for row in going]
            await connection.execute(_Q["sweep_bodies"], ids)
            await connection.execute(_Q["sweep_mentions"], ids)
            await connection.execute(_Q["sweep_history"], [row[0] for row in going], now_ms)
        newest: int = rows[-1][0]
        done = len(rows) < _BATCH or newest >= max(limits.values(), default=0)
        return Swept(len(going), None if done else newest)

    return await pools.transaction(work, patient=True)


async def sweep_dedupe(pools: Pools, lived_ms: int) -> int:
    """Forget ids whose time was lived through and whose messages are gone; returns how many.

    That is the mesh's retention and the one that the id was accepted under (`expires_at - first_seen_at`),
    whichever is longer. Where a whole batch has to wait, ids accepted later wait with it.
    """

    async def work(connection: Any) -> int:
        if not await _is_ours(connection, "dedupe-sweep"):
            return 0
        count: int = await connection.fetchval(_Q["forget_ids"], lived_ms - LATEST_COMMIT_MS, _BATCH)
        return count

    return await pools.transaction(work, patient=True)


async def absent_ephemerals(pools: Pools, lived_ms: int) -> Sequence[Absent]:
    """Return ephemeral members whose lease has run out."""
    rows = await pools.fetch(_Q["absent_ephemerals"], lived_ms, _BATCH)
    return [Absent(str(row[0]), str(row[1]), row[2]) for row in rows]


async def reap_ephemeral(pools: Pools, absent: Sequence[Absent], lived_ms: int) -> Sequence[tuple[str, str]]:
    """Let members leave that are still as absent as they were found; returns (mesh, member) of each."""
    columns = (
        [one.mesh_id for one in absent],
        [one.member_id for one in absent],
        [one.last_seen_at for one in absent],
    )
    rows = await pools.fetch(_Q["reap_ephemeral"], *columns, lived_ms)
    return [(str(row[0]), str(row[1])) for row in rows]


async def check(pools: Pools, position: CheckPosition | None) -> Checked:
    """Look at one batch of one table; each row is judged in the very statement that reads it."""
    stage, after = position or next(iter(STAGES.items()))
    rows = await pools.fetch(_Q[stage], *after, _BATCH)
    if stage == "check_dedupe":
        findings = [finding for row in rows for finding in _judge(row)]
        last = tuple(rows[-1][:3]) if rows else ()
    else:
        kind = stage.replace("check", "orphan")
        findings = [Finding(kind, message_ulid(row[0])) for row in rows if not row[1]]
        last = (rows[-1][2],) if rows else ()
    return Checked(tuple(findings), len(rows), _next(stage, last, len(rows)))


def _judge(row: Sequence[Any]) -> list[Finding]:
    message_id = message_ulid(row[3])
    available, has_body, has_history, has_tombstone = row[4:]
    wrong = (
        ("dedupe_without_body", available and not has_body),
        ("dedupe_without_history", available and not has_history),
        ("dedupe_without_tombstone", not available and not has_tombstone),
    )
    return [Finding(kind, message_id) for kind, is_so in wrong if is_so]


def _next(stage: str, last: tuple[Any, ...], count: int) -> CheckPosition | None:
    if count == _BATCH:
        return stage, last
    names = list(STAGES)
    following = names.index(stage) + 1
    return (names[following], STAGES[names[following]]) if following < len(names) else None


async def _is_ours(connection: Any, job: str) -> bool:
    return bool(await connection.fetchval(_Q["job_lock"], job))
