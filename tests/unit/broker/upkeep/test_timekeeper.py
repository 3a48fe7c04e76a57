"""The broker's clocks: the lived one goes on over restarts and jumps, and follows the database."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from claudemesh.broker.store.sqlite import SqliteStore
from claudemesh.broker.upkeep.timekeeper import Timekeeper
from claudemesh.runtime.errors import StorageError, StorageFull, StorageUnreachable
from claudemesh.runtime.lived import Mark
from tests.support.clock import ManualClock

DAY_MS = 86_400_000


@asynccontextmanager
async def keeping(path: Path, clock: ManualClock) -> AsyncGenerator[tuple[Timekeeper, SqliteStore]]:
    store = SqliteStore(path / "broker.db")
    await store.open()
    time = Timekeeper(store, clock, lambda task, error: None)
    await time.start()
    try:
        yield time, store
    finally:
        await time.stop()
        await store.close()


async def test_it_begins_at_the_wall_time_and_goes_on_without_it(tmp_path: Path) -> None:
    """So that leases of an older schema, which are wall times, still mean something."""
    clock = ManualClock()
    begun = clock.wall_ms()
    async with keeping(tmp_path, clock) as (time, _):
        assert time.lived.now_ms() == begun
        clock.jump(hours=24 * 365)
        assert time.lived.now_ms() == begun
        clock.advance(hours=24)
        assert time.lived.now_ms() == begun + DAY_MS
    clock.jump(hours=-24 * 365 * 30)
    clock.advance(hours=24)
    async with keeping(tmp_path, clock) as (time, _):
        assert time.lived.now_ms() == begun + 2 * DAY_MS


async def test_a_database_that_another_broker_uses_moves_the_clock_on(tmp_path: Path) -> None:
    clock = ManualClock()
    async with keeping(tmp_path, clock) as (time, store):
        later = time.lived.now_ms() + 5000
        await store.upkeep.note_lived_clock(Mark(later, "elsewhere", 0), 0)
        await time.note()
        assert time.lived.now_ms() == later


async def test_a_database_that_was_replaced_sets_the_clock_back(tmp_path: Path) -> None:
    """Its messages have lived by its own clock: with the later one they would go too early."""
    clock = ManualClock()
    async with keeping(tmp_path, clock) as (time, store):
        await store.database.transaction(lambda raw: raw.execute("UPDATE lived_clock SET lived_ms = 1000"))
        clock.advance(hours=1)
        await time.note()
        assert time.lived.now_ms() == 1000
        clock.advance(seconds=1)
        await time.note()
        mark = await store.upkeep.lived_clock()
        assert mark is not None
        assert mark.lived_ms == 2000


@pytest.mark.parametrize(("error", "lines"), [(StorageUnreachable("gone"), 0), (StorageFull("full"), 1)])
async def test_an_outage_of_the_database_is_not_logged_at_each_turn(
    tmp_path: Path, error: StorageError, lines: int, caplog: pytest.LogCaptureFixture
) -> None:
    """It is one condition of the broker; any other failure is told here."""

    async def fail() -> None:
        raise error

    async with keeping(tmp_path, ManualClock()) as (time, _):
        time.note = fail  # type: ignore[method-assign]
    assert [record.getMessage() for record in caplog.records] == ["lived_clock_not_noted"] * lines


@pytest.mark.parametrize("hours", [24, -24, 0.2])
async def test_a_jump_is_logged_once(tmp_path: Path, hours: float, caplog: pytest.LogCaptureFixture) -> None:
    """With its length; time that passes is none."""
    clock = ManualClock()
    async with keeping(tmp_path, clock) as (time, _):
        clock.advance(hours=100)
        time.look_for_jump()
        assert caplog.records == []
        clock.jump(hours=hours)
        for _ in range(3):
            time.look_for_jump()
    [record] = caplog.records
    assert record.getMessage() == "clock_jumped"
    assert record.fields["seconds"] == hours * 3600
