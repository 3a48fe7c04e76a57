"""Upkeep of a SQLite file: return of free space, and the background check of a large file.

All work is done in short steps between the batches of the database's users. A step that a crash interrupts
is repeated after the next start. No step changes the content of tables.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from enum import Enum
from functools import partial
from pathlib import Path
from threading import Event

from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.errors import StorageCorrupt, StorageError
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.sqlite import Database
from claudemesh.runtime.sqlite_check import CheckResult, check_tables
from claudemesh.runtime.sqlite_space import Space, give_back, rebuild, space_of, truncate_wal

log = get_logger("storage")

_EVERY_S = 5.0
_SLICE_PAGES = 256
_SLICES = 64
# Below these bounds free space is kept: the next rows use it.
_IDLE_WAL_BYTES = 1 << 20
_FREE_BYTES = 4 << 20
# A rebuild blocks all other work, about one second for each 100 MiB.
_REBUILD_BYTES = 256 << 20
# A larger log means that another process keeps it from starting over, such as a backup that hangs.
_LARGE_WAL_BYTES = 512 << 20
_CHECK_WAL_BYTES = 256 << 20
_CHECK_AGAIN_S = 3600.0


class UpkeepStep(Enum):
    """Next step of the upkeep of a file."""

    TRUNCATE = "truncate"
    GIVE_BACK = "give_back"
    REBUILD = "rebuild"


def next_step(space: Space, available_bytes: int, *, idle: bool, pressure: bool) -> UpkeepStep | None:
    """Decide the next step. Under pressure every free byte counts, otherwise only a large amount."""
    free_from = space.page_bytes if pressure else max(_FREE_BYTES, space.live_bytes // 4)
    if space.free_bytes >= free_from:
        if space.is_incremental:
            return UpkeepStep.GIVE_BACK
        # A file of an older release. The new copy goes through the log: it takes room twice.
        if space.live_bytes <= _REBUILD_BYTES and 2 * space.live_bytes < available_bytes:
            return UpkeepStep.REBUILD
    wal_from = 1 if pressure else _IDLE_WAL_BYTES
    return UpkeepStep.TRUNCATE if space.wal_bytes >= wal_from and (idle or pressure) else None


class Upkeep:
    """Keeps one database small and checked: `run` in a loop, `step` once."""

    def __init__(self, database: Database, conditions: Conditions) -> None:
        self._database = database
        self._conditions = conditions
        self._name = database.path.name.replace(".", "_")
        self._seen: tuple[int, int] | None = None

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            try:
                await self.step(pressure=False)
            except StorageError as error:
                log.debug("upkeep_put_off", path=str(self._database.path), error=str(error))
            await asyncio.sleep(_EVERY_S)

    async def step(self, *, pressure: bool) -> Space:
        """Take the next step, and return the sizes after it."""
        space = await space_of(self._database)
        seen, self._seen = self._seen, (space.wal_bytes, space.pages)
        step = next_step(space, _available(self._database.path), idle=seen == self._seen, pressure=pressure)
        if step is not None:
            await self._do(step, space)
            space = await space_of(self._database)
        self._judge_wal(space)
        return space

    async def check(self) -> None:
        """Check a file that was too large for the check at the start; returns when every table was read."""
        while not self._database.checked:
            log.info("database_check_began", path=str(self._database.path))
            verdict = await _checked(self._database.path)
            if verdict.damage is not None:
                path = self._database.path
                self._database.fail(StorageCorrupt(f"the database {path} is damaged: {verdict.damage}"))
                return
            self._database.checked = not verdict.unchecked
            text = self._unchecked(verdict)
            self._conditions.set(f"{self._name}_unchecked", text, file=str(self._database.path))
            if verdict.unchecked:
                await asyncio.sleep(_CHECK_AGAIN_S)
            else:
                log.info("database_checked", path=str(self._database.path))

    async def _do(self, step: UpkeepStep, space: Space) -> None:
        if step is UpkeepStep.REBUILD:
            log.info("database_rebuilt", path=str(self._database.path), free_bytes=space.free_bytes)
            await rebuild(self._database)
        elif step is UpkeepStep.GIVE_BACK:
            for _ in range(min(_SLICES, 1 + space.free_pages // _SLICE_PAGES)):
                await give_back(self._database, _SLICE_PAGES)
        await truncate_wal(self._database)

    def _judge_wal(self, space: Space) -> None:
        text, path = None, self._database.path.with_name(f"{self._database.path.name}-wal")
        if space.wal_bytes > _LARGE_WAL_BYTES:
            text = (
                f"{path.name} has grown to {space.wal_bytes >> 20} MiB, because another process reads the "
                "database and does not end: end that process, a backup for example."
            )
        self._conditions.set(f"{self._name}_wal_large", text, file=str(path))

    def _unchecked(self, verdict: CheckResult) -> str | None:
        if not verdict.unchecked:
            return None
        tables = ", ".join(verdict.unchecked)
        return (
            f"{self._database.path.name} is too large for the check at the start, and these tables could "
            f"not be checked for damage since: {tables}. It is tried again every hour; a restart tries at "
            "once."
        )


async def _checked(path: Path) -> CheckResult:
    over = Event()
    try:
        return await asyncio.to_thread(partial(check_tables, path, over.is_set, _CHECK_WAL_BYTES))
    except sqlite3.Error as error:
        log.warning("database_not_checked", path=str(path), error=str(error))
        return CheckResult(None, ("all",))
    finally:
        over.set()


def _available(path: Path) -> int:
    try:
        found = os.statvfs(path.parent)
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize
