"""The host-lived clock: monotonic time added up over the runs of a process, in milliseconds.

Ages of stored rows are differences of this clock. It never goes back and never jumps ahead, also when the
wall clock is set. Time counts while the process runs, and while it is stopped if the machine stayed up
(same boot). Time while the machine was off does not count, because nothing on the host measures it.

The clock's position is kept in a small file. A crash loses at most the time since it was last written, and
a file that is lost or restored from a backup is corrected by the newest stamp found in the databases
(`at_least`), so stored stamps are never in the future.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import orjson

from claudemesh.runtime.clock import Clock
from claudemesh.runtime.files import UnsafeFile, read_own, write_atomic

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Mark:
    """A position of the clock: `lived_ms` was reached `boot_ms` after the start of boot `boot_id`."""

    lived_ms: int
    boot_id: str | None
    boot_ms: int


class LivedClock:
    """Milliseconds that this host has lived through since the clock's file was first made."""

    def __init__(self, clock: Clock, mark: Mark | None = None, boot_id: str | None = None) -> None:
        self._clock = clock
        self._boot_id = boot_id
        boot_ms = self._boot_ms()
        self._offset_ms = -boot_ms
        if mark is not None:
            same_boot = boot_id is not None and mark.boot_id == boot_id and mark.boot_ms <= boot_ms
            self._offset_ms = mark.lived_ms - (mark.boot_ms if same_boot else boot_ms)

    def now_ms(self) -> int:
        """Return the lived time in milliseconds. It never decreases within a run."""
        return self._offset_ms + self._boot_ms()

    def at_least(self, lived_ms: int | None) -> None:
        """Move the clock forward to a stamp of an earlier run. None and older stamps change nothing."""
        if lived_ms is not None and lived_ms > self.now_ms():
            self._offset_ms = lived_ms - self._boot_ms()

    def restart_at(self, lived_ms: int) -> None:
        """Set the clock to a position, also an earlier one: the data that it belongs to was replaced."""
        self._offset_ms = lived_ms - self._boot_ms()

    def mark(self) -> Mark:
        """Return the position to be stored for the next run."""
        return Mark(self.now_ms(), self._boot_id, self._boot_ms())

    def _boot_ms(self) -> int:
        return int(self._clock.monotonic() * 1000)


def load_lived_clock(path: Path, clock: Clock) -> LivedClock:
    """Return the clock of this host's file. A missing, unreadable or damaged file starts it at zero."""
    return LivedClock(clock, _read(path), read_boot_id())


def save_lived_clock(path: Path, lived: LivedClock) -> None:
    """Store the position. `OSError` when it cannot be written: the next run then starts a little earlier."""
    mark = lived.mark()
    data = {"lived_ms": mark.lived_ms, "boot_id": mark.boot_id, "boot_ms": mark.boot_ms}
    write_atomic(path, orjson.dumps(data))


def _read(path: Path) -> Mark | None:
    try:
        data = orjson.loads(read_own(path))
    except (OSError, UnsafeFile, orjson.JSONDecodeError):
        return None
    if not isinstance(data, dict):
        return None
    lived_ms, boot_id, boot_ms = (data.get(key) for key in ("lived_ms", "boot_id", "boot_ms"))
    if type(lived_ms) is not int or type(boot_ms) is not int or lived_ms < 0:
        return None
    return Mark(lived_ms, boot_id if isinstance(boot_id, str) else None, boot_ms)


def read_boot_id() -> str | None:
    """Return the id of the machine's present boot, None where the system does not tell it."""
    try:
        return _BOOT_ID.read_text().strip() or None
    except OSError:
        return None
