"""How much room there is: a warning at 80 % of the budget, no new sends from 95 % on (daemon.md, Disk).

The budget is `[disk] reserved_bytes` for this daemon's own files, or else the file system.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from claudemesh.daemon.outbox.states import Answer
from claudemesh.daemon.settings import DaemonSettings
from claudemesh.runtime.logs import get_logger

log = get_logger("disk")

HIGH_PCT = 80.0
FULL_PCT = 95.0
# Raised again only after it has been better than this, so that a brink does not flood anybody.
_CALM_PCT = 75.0
_EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class Room:
    """What is taken, in percent of what there is."""

    disk_pct: float
    queue_pct: float

    @property
    def worst(self) -> float:
        """The tighter of the two."""
        return max(self.disk_pct, self.queue_pct)


def measure(folder: Path, queued_bytes: int, settings: DaemonSettings) -> Room:
    """Look at the disk. `OSError` when it cannot be looked at."""
    queue_pct = 100 * queued_bytes / settings.max_queue_bytes
    if settings.reserved_bytes is not None:
        used = sum(
            entry.stat().st_size for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False)
        )
        return Room(100 * used / settings.reserved_bytes, queue_pct)
    found = os.statvfs(folder)
    # As `df` counts: what is kept for root is not ours to fill.
    usable = found.f_blocks - found.f_bfree + found.f_bavail
    return Room(100 - 100 * found.f_bavail / usable if usable else 100.0, queue_pct)


class DiskWatch:
    """Looks every two seconds, raises the alarm once, and says what a new send is refused with."""

    def __init__(
        self,
        folder: Path,
        settings: DaemonSettings,
        queued_bytes: Callable[[], int],
        on_high: Callable[[Mapping[str, float]], None],
    ) -> None:
        self._folder = folder
        self._queued_bytes = queued_bytes
        self._on_high = on_high
        self._alarmed = False
        self._refusal: Answer | None = None
        self.settings = settings
        self.room = Room(0.0, 0.0)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(_EVERY_S)

    def look(self) -> None:
        """Look once, and act on what is seen."""
        try:
            self.room = measure(self._folder, self._queued_bytes(), self.settings)
        except OSError as error:
            log.warning("disk_not_measured", error=str(error))
            return
        room = self.room
        if room.worst >= HIGH_PCT and not self._alarmed:
            self._alarmed = True
            found = {"disk_pct": round(room.disk_pct, 1), "queue_pct": round(room.queue_pct, 1)}
            log.warning("outbox_pressure_high", **found)
            self._on_high(found)
        elif room.worst < _CALM_PCT and self._alarmed:
            self._alarmed = False
            log.info("outbox_pressure_gone")
        self._refusal = _refusal(room)

    def refusal(self) -> Answer | None:
        """What a new send is answered with now, None while there is room. The queue is counted exactly."""
        if self._queued_bytes() >= self.settings.max_queue_bytes:
            return _refusal(Room(0.0, 100.0))
        return self._refusal

    @property
    def degraded(self) -> list[str]:
        """What `/v1/health` says of it."""
        refused = self.refusal()
        return (
            []
            if refused is None
            else ["disk_almost_full" if self.room.disk_pct >= FULL_PCT else "queue_full"]
        )


def _refusal(room: Room) -> Answer | None:
    if room.disk_pct >= FULL_PCT:
        text = f"{room.disk_pct:.0f} % of the disk's budget is taken: free some space and send again."
    elif room.queue_pct >= 100:
        text = (
            "The queue is full ([outbox] max_queue_bytes): send again when the broker has taken some of it."
        )
    else:
        return None
    return Answer(507, {"error": "insufficient_storage", "message": f"{text} Nothing of this send was kept."})
