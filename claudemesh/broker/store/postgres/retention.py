"""What goes, and what must hang together, on Postgres, batch by batch (broker.md, Retention and audits).

Crash story: a batch is one transaction. A message's body, history and mentions go together with its
tombstone and the mark on its id, or all of them stay. A lock of the job's name lets one broker work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from claudemesh.broker.store.base import Checked, CheckPosition, Finding, Swept
from claudemesh.broker.store.postgres.pools import Pools
from claudemesh.broker.store.postgres.queries import QUERIES as _Q
from claudemesh.broker.store.postgres.values import message_ulid

_DAY_MS = 86_400_000
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


async def sweep_messages(pools: Pools, now_ms: int, after: int) -> Swept:
    """Delete messages past their mesh's retention that nobody is owed, in the order of their acceptance."""

    async def work(connection: Any) -> Swept:
        if not await _is_ours(connection, "message-sweep"):
            return Swept(0, None)
        kept_ms = {row[0]: row[1] * _DAY_MS for row in await connection.fetch(_Q["retention"])}
        rows = await connection.fetch(_Q["history_after"], after, _BATCH)
        if not rows:
            return Swept(0, None)
        old = [row for row in rows if row[3] < now_ms - kept_ms.get(row[2], 0)]
        found = await connection.fetch(_Q["still_owed"], [row[1] for row in old])
        owed = {row[0] for row in found}
        going = [row for row in old if row[1] not in owed]
        if going:
            ids = [row[1] for row in going]
            await connection.execute(_Q["sweep_bodies"], ids)
            await connection.execute(_Q["sweep_mentions"], ids)
            await connection.execute(_Q["sweep_history"], [row[0] for row in going], now_ms)
        newest = rows[-1]
        young = newest[3] >= now_ms - min(kept_ms.values(), default=0)
        return Swept(len(going), None if young or len(rows) < _BATCH else newest[0])

    return await pools.transaction(work, patient=True)


async def sweep_dedupe(pools: Pools, now_ms: int) -> int:
    """Forget ids past their time, whose messages are gone; returns how many."""

    async def work(connection: Any) -> int:
        if not await _is_ours(connection, "dedupe-sweep"):
            return 0
        count: int = await connection.fetchval(_Q["forget_ids"], now_ms, _BATCH)
        return count

    return await pools.transaction(work, patient=True)


async def reap_ephemeral(pools: Pools, now_ms: int, idle_since_ms: int) -> Sequence[tuple[str, str]]:
    """Let ephemeral members leave whose lease has run out; returns (mesh, member) of each."""
    rows = await pools.fetch(_Q["reap_ephemeral"], now_ms, idle_since_ms, _BATCH)
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
