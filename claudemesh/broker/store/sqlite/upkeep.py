"""The lived clock and the runs of jobs on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from claudemesh.broker.store.sqlite.queries import QUERIES as _Q
from claudemesh.broker.store.types import HORIZON_EVERY_MS, JobRun
from claudemesh.runtime.lived import Mark
from claudemesh.runtime.sqlite import Database


class SqliteUpkeep:
    """Implements `UpkeepStore`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def lived_clock(self) -> Mark | None:
        row = await self._db.run(lambda raw: raw.execute(_Q["lived_clock"]).fetchone())
        return None if row is None else Mark(*row)

    async def note_lived_clock(self, mark: Mark, known_ms: int) -> int:
        def work(raw: sqlite3.Connection) -> int:
            row = raw.execute(_Q["lived_clock"]).fetchone()
            if row is not None and (row[0] < known_ms or row[0] > mark.lived_ms):
                return int(row[0])
            raw.execute(_Q["lived_clock_note"], (mark.lived_ms, mark.boot_id, mark.boot_ms))
            raw.execute(_Q["horizon_note"], (mark.lived_ms, HORIZON_EVERY_MS))
            return mark.lived_ms

        return await self._db.transaction(work)

    async def job_runs(self) -> Mapping[str, JobRun]:
        rows = await self._db.run(lambda raw: raw.execute(_Q["job_runs"]).fetchall())
        return {row[0]: JobRun(*row) for row in rows}

    async def note_job(self, run: JobRun) -> None:
        values = (run.job, run.lived_ms, run.finished_at, run.count, run.found)
        await self._db.transaction(lambda raw: raw.execute(_Q["job_note"], values))
