"""Disk and queue budget: 80 % warns once, 95 % refuses new sends (docs/spec/daemon.md, Disk)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from claudemesh.daemon.disk import DiskWatch, Used, measure
from claudemesh.daemon.settings import DaemonSettings
from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.errors import StorageFull
from claudemesh.runtime.migrations import Migration
from claudemesh.runtime.sqlite import Database
from claudemesh.runtime.sqlite_upkeep import Upkeep
from tests.support.clock import ManualClock

BUDGET = DaemonSettings(reserved_bytes=1_000_000, max_queue_bytes=1 << 20)
SCHEMA = [Migration(1, "CREATE TABLE t (a INTEGER PRIMARY KEY, b BLOB);")]


class Watched:
    """Three databases and a file of a chosen size in a folder, a queue of a chosen length, and the alarms."""

    def __init__(self, folder: Path, outbox: Database, inbox: Database, files: Database) -> None:
        self.file = folder / "file"
        self.outbox, self.inbox = outbox, inbox
        self.queued = 0
        self.removable = 0
        self.alarms: list[Any] = []
        self.conditions = Conditions(ManualClock())
        self.watch = DiskWatch(
            folder,
            BUDGET,
            lambda: self.queued,
            self.alarms.append,
            self.conditions,
            [Upkeep(database, self.conditions) for database in (outbox, inbox, files)],
            self._make_room,
        )

    async def _make_room(self) -> bool:
        if self.removable == 0:
            return False
        self.removable -= 1
        await self.inbox.transaction(
            lambda raw: raw.execute("DELETE FROM t WHERE a IN (SELECT min(a) FROM t)")
        )
        return True

    async def look(self, per_mille: int | None = None) -> int | None:
        """Look with so much of the budget taken; returns the status that a new send gets."""
        if per_mille is not None:
            self.file.write_bytes(b"")
            await self.watch.examine()
            rest = per_mille * 1000 - self.watch._used.total
            self.file.write_bytes(bytes(max(0, rest)))
        await self.watch.examine()
        self.watch.look()
        refusal = self.watch.refusal()
        return None if refusal is None else refusal.status

    @property
    def degraded(self) -> list[str]:
        """The codes that health shows."""
        return [item["code"] for item in self.conditions.items()]


@asynccontextmanager
async def watched(folder: Path) -> AsyncGenerator[Watched]:
    """A folder that is watched."""
    names = ("outbox.db", "inbox.db", "files.db")
    outbox, inbox, files = [await Database.open(folder / name, SCHEMA) for name in names]
    try:
        yield Watched(folder, outbox, inbox, files)
    finally:
        for database in (outbox, inbox, files):
            await database.close()


async def insert(database: Database, count: int, size: int) -> None:
    """Write so many rows of this size."""
    await database.transaction(
        lambda raw: raw.executemany("INSERT INTO t (b) VALUES (?)", [(bytes(size),)] * count)
    )


@pytest.mark.parametrize(
    ("taken", "status"), [(100, None), (799, None), (949, None), (950, 507), (2000, 507)]
)
async def test_new_sends_are_refused_from_95_percent_on(
    tmp_path: Path, taken: int, status: int | None
) -> None:
    """And taken again below, without a restart."""
    async with watched(tmp_path) as made:
        assert await made.look(taken) == status
        assert await made.look(0) is None
        assert made.degraded == []


async def test_the_alarm_is_raised_once_at_80_percent(tmp_path: Path) -> None:
    """Again only after it has been below the lower level (hysteresis)."""
    async with watched(tmp_path) as made:
        for taken in (790, 800, 850, 790, 810):
            await made.look(taken)
        assert [alarm["disk_pct"] for alarm in made.alarms] == [80.0]
        await made.look(700)
        await made.look(900)
        assert [alarm["disk_pct"] for alarm in made.alarms] == [80.0, 90.0]


async def test_a_full_queue_refuses_at_once_and_says_which_setting(tmp_path: Path) -> None:
    """Between two looks too: the queue is counted exactly."""
    async with watched(tmp_path) as made:
        assert await made.look() is None
        made.queued = BUDGET.max_queue_bytes
        refusal = made.watch.refusal()
        assert refusal is not None
        assert (refusal.status, "max_queue_bytes" in refusal.body["message"]) == (507, True)
        made.queued = 0
        assert made.watch.refusal() is None


async def test_space_that_deleted_rows_leave_does_not_count(tmp_path: Path) -> None:
    """Neither in the file nor in its log: the next sends use it, so the limit can be left again."""
    async with watched(tmp_path) as made:
        await insert(made.outbox, 30, 30_000)
        assert await made.look() == 507
        assert made.degraded == ["disk_almost_full"]
        await made.outbox.transaction(lambda raw: raw.execute("DELETE FROM t"))
        assert await made.look() is None
        assert made.degraded == []


async def test_what_was_queued_since_the_last_look_counts(tmp_path: Path) -> None:
    """A burst between two looks does not pass the budget."""
    async with watched(tmp_path) as made:
        assert await made.look(500) is None
        made.queued = 460_000
        refusal = made.watch.refusal()
        assert refusal is not None
        assert str(tmp_path) in refusal.body["message"]


async def test_over_the_budget_acknowledged_messages_make_room_and_unread_ones_stay(tmp_path: Path) -> None:
    """With nothing to remove the inbox takes no more: messages stay at the broker."""
    async with watched(tmp_path) as made:
        await insert(made.inbox, 40, 30_000)
        made.removable = 20
        assert await made.look() is None
        assert 0 < made.removable < 20
        made.watch.check_room_for_messages(1)
        made.removable = 0
        await insert(made.inbox, 20, 30_000)
        await made.look()
        with pytest.raises(StorageFull, match="reserved_bytes"):
            made.watch.check_room_for_messages(1)


async def test_shared_files_and_their_database_count(tmp_path: Path) -> None:
    """The encrypted copies, and the texts that were fetched."""
    async with watched(tmp_path) as made:
        assert await made.look() is None
        for name, size in (("spool", 500_000), ("texts", 440_000)):
            (tmp_path / name).mkdir()
            (tmp_path / name / "one").write_bytes(bytes(size))
        assert await made.look() == 507
        refusal = made.watch.refusal()
        assert refusal is not None and "shared files" in refusal.body["message"]


async def test_a_file_that_would_pass_the_budget_is_refused_before_it_is_copied(tmp_path: Path) -> None:
    """Also when several come between two looks."""
    async with watched(tmp_path) as made:
        assert await made.look(100) is None
        made.watch.take_room_for_file(400_000)
        made.watch.take_room_for_file(400_000)
        with pytest.raises(ProtocolError, match="insufficient_storage"):
            made.watch.take_room_for_file(400_000)
        await made.watch.examine()
        made.watch.take_room_for_file(400_000)


def test_without_a_budget_the_file_system_counts(tmp_path: Path) -> None:
    """As df counts it."""
    room = measure(tmp_path, 0, DaemonSettings(), Used())
    assert 0 <= room.disk_pct <= 100
