"""The embedded store's part for the upkeep: its lived clock, the runs of its jobs, retention and its check.

Crash story: the clock's position and a new horizon row are one transaction. A crash loses at most the time
since the last note, so that everything is kept a little longer.
"""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from claudemesh.broker.store.sqlite import retention
from claudemesh.broker.store.sqlite.queries import QUERIES as _Q
from claudemesh.broker.store.types import HORIZON_EVERY_MS, Absent, Checked, CheckPosition, JobRun, Swept
from claudemesh.runtime.lived import Mark
from claudemesh.runtime.sqlite import Database


class SqliteUpkeep(ABC):
    """What an embedded broker's timekeeper and jobs ask of the store."""

    @property
    @abstractmethod
    def _db(self) -> Database: ...

    async def lived_clock(self) -> Mark | None:
        """Return the clock's position as last noted; None in a new database."""
        row = await self._db.run(lambda raw: raw.execute(_Q["lived_clock"]).fetchone())
        return None if row is None else Mark(*row)

    async def lived_clock_note(self, mark: Mark, known_ms: int) -> int:
        """Note the clock's position and, every hour of it, how far the history has come.

        Returns the position that holds: a later one of another broker, or an earlier one than the caller has
        known before, when the database was replaced; then nothing is written.
        """

        def work(raw: sqlite3.Connection) -> int:
            row = raw.execute(_Q["lived_clock"]).fetchone()
            if row is not None and (row[0] < known_ms or row[0] > mark.lived_ms):
                return int(row[0])
            raw.execute(_Q["lived_clock_note"], (mark.lived_ms, mark.boot_id, mark.boot_ms))
            raw.execute(_Q["horizon_note"], (mark.lived_ms, HORIZON_EVERY_MS))
            return mark.lived_ms

        return await self._db.transaction(work)

    async def job_runs(self) -> Mapping[str, JobRun]:
        """Return the last run of each job that has run."""
        rows = await self._db.run(lambda raw: raw.execute(_Q["job_runs"]).fetchall())
        return {row[0]: JobRun(*row) for row in rows}

    async def job_note(self, run: JobRun) -> None:
        """Note that a job has run."""
        values = (run.job, run.lived_ms, run.finished_at, run.count, run.found)
        await self._db.transaction(lambda raw: raw.execute(_Q["job_note"], values))

    async def sweep_messages(self, lived_ms: int, now_ms: int, after: int) -> Swept:
        """Delete one batch of messages past their retention, with their tombstones."""
        return await self._db.transaction(lambda raw: retention.sweep_messages(raw, lived_ms, now_ms, after))

    async def sweep_dedupe(self, lived_ms: int) -> int:
        """Forget one batch of ids past their time."""
        return await self._db.transaction(lambda raw: retention.sweep_dedupe(raw, lived_ms))

    async def absent_ephemerals(self, lived_ms: int) -> Sequence[Absent]:
        """Return one batch of ephemeral members without a lease."""
        return await self._db.run(lambda raw: retention.absent_ephemerals(raw, lived_ms))

    async def reap_ephemeral(self, absent: Sequence[Absent], lived_ms: int) -> Sequence[tuple[str, str]]:
        """Let those of these members leave that have not been here since."""
        return await self._db.transaction(lambda raw: retention.reap_ephemeral(raw, absent, lived_ms))

    async def check(self, position: CheckPosition | None) -> Checked:
        """Look for orphans in one batch; accepts go on between batches."""
        return await self._db.run(lambda raw: retention.check(raw, position))
