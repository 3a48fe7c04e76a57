"""The host-lived clock: only time that really passed counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from claudemesh.runtime.lived import LivedClock, Mark, load_lived_clock, save_lived_clock
from tests.support.clock import ManualClock

HOUR_MS = 3_600_000


@pytest.mark.parametrize("hours", [24 * 365, -24 * 365, 24 * 365 * 12, -24 * 365 * 56])
def test_a_wall_clock_that_jumps_moves_nothing(hours: float) -> None:
    clock = ManualClock()
    lived = LivedClock(clock)
    clock.jump(hours=hours)
    assert lived.now_ms() == 0


def test_time_passes_with_the_monotonic_clock() -> None:
    clock = ManualClock()
    lived = LivedClock(clock)
    clock.advance(hours=2)
    assert lived.now_ms() == 2 * HOUR_MS


def test_time_between_two_runs_of_one_boot_counts() -> None:
    clock = ManualClock()
    first = LivedClock(clock, boot_id="boot")
    clock.advance(hours=1)
    mark = first.mark()
    clock.advance(hours=3)
    assert LivedClock(clock, mark, "boot").now_ms() == 4 * HOUR_MS


@pytest.mark.parametrize("boot_id", ["another", None])
def test_time_while_the_machine_was_off_does_not_count(boot_id: str | None) -> None:
    clock = ManualClock()
    mark = Mark(5 * HOUR_MS, "boot", 1)
    clock.advance(hours=3)
    assert LivedClock(clock, mark, boot_id).now_ms() == 5 * HOUR_MS


def test_a_monotonic_clock_behind_the_mark_of_the_same_boot_takes_nothing_back() -> None:
    """A virtual machine that was set back to a snapshot."""
    mark = Mark(5 * HOUR_MS, "boot", 10**12)
    assert LivedClock(ManualClock(), mark, "boot").now_ms() == 5 * HOUR_MS


def test_a_stored_stamp_moves_the_clock_forward_and_never_back() -> None:
    lived = LivedClock(ManualClock())
    lived.at_least(7000)
    lived.at_least(10)
    lived.at_least(None)
    assert lived.now_ms() == 7000


def test_the_file_carries_the_clock_to_the_next_run(tmp_path: Path) -> None:
    clock, path = ManualClock(), tmp_path / "lived_clock.json"
    lived = load_lived_clock(path, clock)
    clock.advance(hours=1)
    save_lived_clock(path, lived)
    assert load_lived_clock(path, clock).now_ms() == HOUR_MS
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"lived_ms": true, "boot_ms": 1}', '{"lived_ms": -1, "boot_ms": 1}']
)
def test_a_damaged_file_starts_the_clock_at_zero(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lived_clock.json"
    path.write_text(text)
    path.chmod(0o600)
    assert load_lived_clock(path, ManualClock()).now_ms() == 0
