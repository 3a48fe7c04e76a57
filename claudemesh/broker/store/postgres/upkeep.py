"""The lived clock and the runs of jobs on Postgres.

Brokers that share the database move the clock one after another, and never further than each of them has seen
time pass since it last read the position.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from claudemesh.broker.store.postgres.pools import Pools
from claudemesh.broker.store.postgres.queries import QUERIES as _Q
from claudemesh.broker.store.types import HORIZON_EVERY_MS, JobRun
from claudemesh.runtime.lived import Mark


class PostgresUpkeep:
    """Implements `UpkeepStore`."""

    def __init__(self, pools: Pools) -> None:
        self._db = pools

    async def lived_clock(self) -> Mark | None:
        rows = await self._db.fetch(_Q["lived_clock"])
        return Mark(*rows[0]) if rows else None

    async def note_lived_clock(self, mark: Mark, known_ms: int) -> int:
        async def work(connection: Any) -> int:
            await connection.execute(_Q["lived_clock_lock"])
            row = await connection.fetchrow(_Q["lived_clock"])
            if row is not None and (row[0] < known_ms or row[0] > mark.lived_ms):
                return int(row[0])
            await connection.execute(_Q["lived_clock_note"], mark.lived_ms, mark.boot_id, mark.boot_ms)
            await connection.execute(_Q["horizon_note"], mark.lived_ms, HORIZON_EVERY_MS)
            return mark.lived_ms

        return await self._db.transaction(work)

    async def job_runs(self) -> Mapping[str, JobRun]:
        rows = await self._db.fetch(_Q["job_runs"])
        return {row[0]: JobRun(*row) for row in rows}

    async def note_job(self, run: JobRun) -> None:
        values = (run.job, run.lived_ms, run.finished_at, run.count, run.found)
        await self._db.execute(_Q["job_note"], *values)
