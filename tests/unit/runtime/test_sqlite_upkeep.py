"""Files give space back, and a large file is checked in the background: damage ends its use."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.errors import StorageCorrupt, StorageError
from claudemesh.runtime.migrations import Migration
from claudemesh.runtime.sqlite import Database
from claudemesh.runtime.sqlite_check import check_tables
from claudemesh.runtime.sqlite_space import Space, space_of
from claudemesh.runtime.sqlite_upkeep import Upkeep, UpkeepStep, next_step
from tests.support.clock import ManualClock
from tests.support.waiting import WAIT_S

SCHEMA = [Migration(1, "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT UNIQUE, c BLOB);")]
_MIB = 1 << 20


def space(*, live: int = 0, free: int = 0, wal: int = 0, incremental: bool = True) -> Space:
    """Sizes in MiB."""
    return Space(4096, (live + free) * 256, free * 256, wal * _MIB, incremental)


@pytest.mark.parametrize(
    ("found", "idle", "pressure", "step"),
    [
        (space(live=100, free=1), True, False, None),
        (space(live=10, free=8), False, False, UpkeepStep.GIVE_BACK),
        (space(live=100, free=1), False, True, UpkeepStep.GIVE_BACK),
        (space(live=10, free=8, incremental=False), True, False, UpkeepStep.REBUILD),
        (space(live=600, free=400, incremental=False), True, False, None),
        (space(live=10, wal=16), False, False, None),
        (space(live=10, wal=16), True, False, UpkeepStep.TRUNCATE),
        (space(live=10, wal=16), False, True, UpkeepStep.TRUNCATE),
        (space(live=10), True, True, None),
    ],
)
def test_the_next_step_is_what_is_worth_it(
    found: Space, idle: bool, pressure: bool, step: UpkeepStep | None
) -> None:
    """Under pressure every free page counts; a rebuild needs room and a file that is not too large."""
    assert next_step(found, 1 << 40, idle=idle, pressure=pressure) == step


def test_a_rebuild_waits_for_room() -> None:
    """The new copy needs as much again, twice."""
    assert next_step(space(live=10, free=8, incremental=False), 15 * _MIB, idle=True, pressure=True) is None


async def insert(database: Database, count: int) -> None:
    """Write rows of 10 kB."""
    rows = [(f"name-{number}", bytes(10_000)) for number in range(count)]
    await database.transaction(lambda raw: raw.executemany("INSERT INTO t (b, c) VALUES (?, ?)", rows))


@pytest.mark.parametrize("old", [False, True])
async def test_space_goes_back_to_the_file_system(tmp_path: Path, old: bool) -> None:
    """In a file of today step by step, in one of an older release by one rebuild; the rows stay."""
    path = tmp_path / "x.db"
    if old:
        with sqlite3.connect(path) as raw:
            raw.execute("CREATE TABLE old (a)")
        raw.close()
    database = await Database.open(path, SCHEMA)
    upkeep = Upkeep(database, Conditions(ManualClock()))
    await insert(database, 1000)
    await upkeep.step(pressure=True)
    assert path.stat().st_size > 9_000_000
    await database.transaction(lambda raw: raw.execute("DELETE FROM t WHERE a > 10"))
    found = await upkeep.step(pressure=True)
    count = await database.run(lambda raw: raw.execute("SELECT count(*) FROM t").fetchone()[0])
    assert (count, found.is_incremental, found.wal_bytes) == (10, True, 0)
    assert found.used_bytes < 1_000_000
    assert path.stat().st_size < 1_000_000
    await database.close()


def damage(path: Path) -> None:
    """Overwrite a page in the middle of the file."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(b"\xff" * 4096)


async def test_a_file_too_large_for_the_check_at_the_start_is_checked_after_it(tmp_path: Path) -> None:
    """Damage ends its use, and the next start refuses the file."""
    path = tmp_path / "x.db"
    database = await Database.open(path, SCHEMA)
    await database.transaction(
        lambda raw: raw.executemany("INSERT INTO t (b) VALUES (?)", [(f"n{i}" * 20,) for i in range(5000)])
    )
    await database.close()
    damage(path)
    failures: list[StorageError] = []
    database = await Database.open(path, SCHEMA, failures.append, check_pages=10)
    assert not database.checked
    await asyncio.wait_for(Upkeep(database, Conditions(ManualClock())).check(), WAIT_S)
    assert [type(error) for error in failures] == [StorageCorrupt]
    with pytest.raises(StorageCorrupt):
        await database.run(lambda raw: raw.execute("SELECT 1").fetchone())
    await database.close()
    with pytest.raises(StorageCorrupt):
        await Database.open(path, SCHEMA, check_pages=10)


async def test_a_sound_large_file_is_found_sound_while_it_is_written(tmp_path: Path) -> None:
    """The check takes a snapshot of its own and holds no writer up."""
    path = tmp_path / "x.db"
    database = await Database.open(path, SCHEMA)
    await insert(database, 500)
    await database.close()
    conditions = Conditions(ManualClock())
    database = await Database.open(path, SCHEMA, check_pages=10)
    check = asyncio.create_task(Upkeep(database, conditions).check())
    await database.transaction(lambda raw: raw.execute("INSERT INTO t (b) VALUES ('meanwhile')"))
    await asyncio.wait_for(check, WAIT_S)
    assert database.checked
    assert conditions.items() == []
    await database.close()


async def test_what_could_not_be_checked_is_said(tmp_path: Path) -> None:
    """A check that must end early names the tables."""
    database = await Database.open(tmp_path / "x.db", SCHEMA)
    await insert(database, 10)
    assert check_tables(database.path, lambda: True, 1 << 30).unchecked == ("t",)
    assert (await space_of(database)).pages > 10
    await database.close()
