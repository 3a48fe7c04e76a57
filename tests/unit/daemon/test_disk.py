"""How much room there is: 80 % warns once, 95 % refuses what is new (daemon.md, Disk)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from claudemesh.daemon.disk import DiskWatch, measure
from claudemesh.daemon.settings import DaemonSettings

BUDGET = DaemonSettings(reserved_bytes=1000, max_queue_bytes=1 << 20)


class Watched:
    """A folder with a file of a chosen size, a queue of a chosen length, and the alarms that were raised."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "file"
        self.queued = 0
        self.alarms: list[Any] = []
        self.watch = DiskWatch(folder, BUDGET, lambda: self.queued, self.alarms.append)

    def look(self, size: int) -> int | None:
        """Look with so many bytes taken; returns the status that a new send gets."""
        self.file.write_bytes(bytes(size))
        self.watch.look()
        refusal = self.watch.refusal()
        return None if refusal is None else refusal.status


@pytest.mark.parametrize(("size", "status"), [(0, None), (799, None), (949, None), (950, 507), (2000, 507)])
def test_new_sends_are_refused_from_95_percent_on(tmp_path: Path, size: int, status: int | None) -> None:
    """And taken again below, without a restart."""
    watched = Watched(tmp_path)
    assert watched.look(size) == status
    assert watched.look(0) is None
    assert watched.watch.degraded == []


def test_the_alarm_is_raised_once_at_80_percent(tmp_path: Path) -> None:
    """Again only after it has been clearly better: a brink does not flood anybody."""
    watched = Watched(tmp_path)
    for size in (790, 800, 850, 790, 810):
        watched.look(size)
    assert [alarm["disk_pct"] for alarm in watched.alarms] == [80.0]
    watched.look(700)
    watched.look(900)
    assert [alarm["disk_pct"] for alarm in watched.alarms] == [80.0, 90.0]


def test_a_full_queue_refuses_at_once_and_says_which_setting(tmp_path: Path) -> None:
    """Between two looks too: the queue is counted exactly."""
    watched = Watched(tmp_path)
    assert watched.look(0) is None
    watched.queued = BUDGET.max_queue_bytes
    refusal = watched.watch.refusal()
    assert refusal is not None
    assert (refusal.status, "max_queue_bytes" in refusal.body["message"]) == (507, True)
    assert watched.watch.degraded == ["queue_full"]
    watched.queued -= 1
    assert watched.watch.refusal() is None


def test_without_a_budget_the_file_system_counts(tmp_path: Path) -> None:
    """As df counts it."""
    room = measure(tmp_path, 0, DaemonSettings())
    assert 0 <= room.disk_pct <= 100
