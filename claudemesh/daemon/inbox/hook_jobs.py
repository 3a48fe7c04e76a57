"""Hook jobs: a row for each hook that has to run, in inbox.db beside the message that triggers it.

Crash story: the jobs of a message are written in the message's transaction, and a job is deleted after its
hook has run. A crash between the two runs the hook again, with the same event id. A job that was begun in
too many runs of the daemon is parked.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from msgspec import Struct

from claudemesh.daemon.inbox.items import items_of
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.queries import load_queries
from claudemesh.runtime.sqlite import Database

_Q = load_queries("claudemesh.daemon.sql", "inbox.sql")

MAX_LIVES = 5


class Job(Struct, frozen=True):
    """One hook for one event."""

    id: int
    hook: str
    event_id: str
    event: Mapping[str, Any]


class HookJobs:
    """The jobs in inbox.db."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def recover(self, at_once: int) -> int:
        """Add a run to the count of each job that an earlier daemon may have begun; return the number of
        parked jobs."""

        def work(raw: sqlite3.Connection) -> int:
            raw.execute(_Q["prune_jobs"])
            raw.execute(_Q["count_left"], (at_once,))
            parked: int = raw.execute(_Q["jobs_parked"], (MAX_LIVES,)).fetchone()[0]
            return parked

        return await self._db.transaction(work)

    async def add(self, hook: str, event_id: str, event: Mapping[str, Any]) -> None:
        """Write a job for an event other than a message."""
        text = orjson.dumps(event).decode()
        await self._db.transaction(lambda raw: raw.execute(_Q["add_job"], (hook, event_id, text)))

    async def after(self, job_id: int, limit: int) -> list[Job]:
        """Return up to `limit` jobs with a greater id, oldest first."""
        rows = await self._db.run(
            lambda raw: items_of(raw.execute(_Q["jobs_after"], (job_id, MAX_LIVES, limit)))
        )
        return [_job(row) for row in rows]

    async def remove(self, job_ids: Sequence[int]) -> Sequence[None]:
        """Delete the jobs of hooks that have run."""

        def work(raw: sqlite3.Connection) -> None:
            raw.executemany(_Q["remove_job"], [(job_id,) for job_id in job_ids])

        failpoint("hook.before_job_removal")
        await self._db.transaction(work)
        return [None] * len(job_ids)


def add_message_jobs(raw: sqlite3.Connection, broker_message_id: str, hooks: Sequence[str]) -> None:
    """Write a message's jobs, in the transaction that writes the message."""
    raw.executemany(_Q["add_job"], [(hook, broker_message_id, None) for hook in hooks])


def _job(row: dict[str, Any]) -> Job:
    job_id, hook, event_id = row.pop("job_id"), row.pop("hook"), row.pop("event_id")
    text = row.pop("event")
    event = row if text is None else orjson.loads(text)
    return Job(job_id, hook, event_id, event)
