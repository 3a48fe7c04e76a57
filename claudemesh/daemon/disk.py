"""Disk and queue budget: a warning at 80 %, no new sends from 95 % on (docs/spec/daemon.md, Disk).

The budget is `[disk] reserved_bytes` for this daemon's own files, or else the file system. Of the
databases, the pages in use and the write-ahead log count. Free pages do not: new rows take those first.
`daemon.log` does not count either, because it has a bound of its own. Encrypted copies of shared files and
fetched texts count. With a budget, received messages count too. When the budget is used up, the oldest
acknowledged messages are deleted. When there are none, new messages stay at the broker.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from claudemesh.daemon.outbox.states import Answer
from claudemesh.daemon.settings import DaemonSettings
from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.errors import StorageError, StorageFull
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.oserrors import explain
from claudemesh.runtime.sqlite_upkeep import Upkeep

log = get_logger("disk")

HIGH_PCT = 80.0
FULL_PCT = 95.0
# Hysteresis: the alarm is armed again below this level, so that a value near the threshold does not repeat
# it.
_CALM_PCT = 75.0
_EVERY_S = 2.0
# With this much free space the file system counts as not full any more, even if the last commit failed.
_ROOM_AGAIN_BYTES = 1 << 20
# Encrypted copies of shared files, and received texts.
_FILE_FOLDERS = ("spool", "texts")
_DATABASE_PARTS = (".db", ".db-wal", ".db-shm", ".db-journal")


class Room(Struct, frozen=True):
    """Use of disk and outbox, in percent of their budgets."""

    disk_pct: float
    queue_pct: float

    @property
    def worst(self) -> float:
        """The higher of the two."""
        return max(self.disk_pct, self.queue_pct)


class Used(Struct, frozen=True):
    """Size of this daemon's own files, in bytes."""

    outbox: int = 0
    inbox: int = 0
    files: int = 0
    other: int = 0

    @property
    def total(self) -> int:
        """The sum."""
        return self.outbox + self.inbox + self.files + self.other


def measure(folder: Path, queued_bytes: int, settings: DaemonSettings, used: Used) -> Room:
    """Return the use of the budget. Raise `OSError` when the disk cannot be measured."""
    queue_pct = 100 * queued_bytes / settings.max_queue_bytes
    if settings.reserved_bytes is not None:
        return Room(100 * used.total / settings.reserved_bytes, queue_pct)
    found = os.statvfs(folder)
    # As `df` counts: blocks reserved for root are not available.
    usable = found.f_blocks - found.f_bfree + found.f_bavail
    return Room(100 - 100 * found.f_bavail / usable if usable else 100.0, queue_pct)


def folder_bytes(folder: Path) -> int:
    """Return the size of the files in a folder, 0 where there is none."""
    return other_bytes(folder) if folder.is_dir() else 0


def other_bytes(folder: Path) -> int:
    """Return the size of the files beside the databases and the log."""
    total = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(_DATABASE_PARTS) or entry.name.startswith("daemon.log"):
                continue
            # A temporary file may have been deleted since it was listed.
            with suppress(FileNotFoundError):
                if entry.is_file(follow_symlinks=False):
                    total += entry.stat(follow_symlinks=False).st_size
    return total


class DiskWatch:
    """Measures every two seconds, raises the alarm once, and refuses new sends when the disk or outbox is
    full."""

    def __init__(
        self,
        folder: Path,
        settings: DaemonSettings,
        queued_bytes: Callable[[], int],
        on_high: Callable[[Mapping[str, float]], None],
        conditions: Conditions,
        upkeeps: Sequence[Upkeep],
        make_room: Callable[[], Awaitable[bool]],
    ) -> None:
        """Watch a folder. `upkeeps` are those of outbox.db, inbox.db and files.db, in this order; `make_room`
        removes some acknowledged messages and returns whether there were any."""
        self._folder = folder
        self._queued_bytes = queued_bytes
        self._on_high = on_high
        self._conditions = conditions
        self._upkeeps = upkeeps
        self._make_room = make_room
        self._alarmed = False
        self._refusal: Answer | None = None
        self._used = Used()
        self._queued_then = self._received_since = self._shared_since = 0
        self._settings = settings
        self.room = Room(0.0, 0.0)

    def go_by(self, settings: DaemonSettings) -> None:
        """Put other settings in force, and look at once."""
        self._settings = settings
        self.look()

    async def run(self) -> None:
        """Measure until cancelled. Above the threshold, give space back first."""
        while True:
            try:
                await self.examine()
            except (StorageError, OSError) as error:
                log.debug("disk_not_examined", error=str(error))
            self.look()
            await asyncio.sleep(_EVERY_S)

    async def examine(self) -> None:
        """Read the sizes of the databases. Above the threshold, first delete old messages and return free
        pages."""
        pressed = self._settings.reserved_bytes is not None and (
            self._alarmed or self._pct(self._used_now()) >= HIGH_PCT
        )
        await self._read_sizes(pressed=pressed)
        if self._settings.reserved_bytes is None:
            return
        removed = False
        while self._pct(self._used) >= FULL_PCT and await self._make_room():
            removed = True
            await self._read_sizes(pressed=True)
        if removed:
            log.info("acknowledged_messages_removed", reason="reserved_bytes", used=self._used.total)

    async def _read_sizes(self, *, pressed: bool) -> None:
        queued, received, shared = self._queued_bytes(), self._received_since, self._shared_since
        outbox, inbox, files = [(await upkeep.step(pressure=pressed)).used_bytes for upkeep in self._upkeeps]
        files += sum(folder_bytes(self._folder / name) for name in _FILE_FOLDERS)
        self._used = Used(outbox, inbox, files, other_bytes(self._folder))
        self._queued_then = queued
        # Bytes that came while the sizes were read are counted twice until the next look, never left out.
        self._received_since -= received
        self._shared_since -= shared

    def look(self) -> None:
        """Measure once, and set the alarm, the conditions and the refusal."""
        try:
            self.room = measure(self._folder, self._queued_bytes(), self._settings, self._used_now())
            available = _available(self._folder)
        except OSError as error:
            self._conditions.begin(
                "disk_not_measured", f"{self._folder} cannot be measured: {explain(error)}."
            )
            return
        self._conditions.end("disk_not_measured")
        room = self.room
        if room.worst >= HIGH_PCT and not self._alarmed:
            self._alarmed = True
            found = {"disk_pct": round(room.disk_pct, 1), "queue_pct": round(room.queue_pct, 1)}
            log.warning("outbox_pressure_high", **found)
            self._on_high(found)
        elif room.worst < _CALM_PCT and self._alarmed:
            self._alarmed = False
            log.info("outbox_pressure_gone")
        if available >= _ROOM_AGAIN_BYTES:
            self._conditions.end("disk_full")
        self._conditions.set(
            "disk_almost_full", self._disk_text(room.disk_pct) if room.disk_pct >= FULL_PCT else None
        )
        self._conditions.set("queue_full", _QUEUE_TEXT if room.queue_pct >= 100 else None)
        self._refusal = self._refuse(room)

    def refusal(self) -> Answer | None:
        """Return the refusal of a new send, None while there is room. The size of the outbox is exact."""
        queued = self._queued_bytes()
        if queued >= self._settings.max_queue_bytes:
            return self._refuse(Room(0.0, 100.0))
        if self._settings.reserved_bytes is not None and self._refusal is None:
            pct = self._pct(self._used_now())
            if pct >= FULL_PCT or (pct >= HIGH_PCT and not self._alarmed):
                self.look()
        return self._refusal

    def check_room_for_messages(self, size: int) -> None:
        """Count received messages of `size` bytes. Raise `StorageFull` when the budget is used up already.

        One batch may exceed the budget. Splitting it would change nothing.
        """
        if self._settings.reserved_bytes is None:
            return
        pct = self._pct(self._used_now())
        if pct >= 100:
            raise StorageFull(self._disk_text(pct).rstrip("."))
        self._received_since += size

    def take_room_for_file(self, size: int) -> None:
        """Count an encrypted copy of `size` bytes that is about to be written.

        Raise `ProtocolError` insufficient_storage when new sends would be refused then.
        """
        reserved = self._settings.reserved_bytes
        if reserved is not None:
            taken, whole = self._used_now().total, reserved
        else:
            # Written copies are in the numbers of the file system already.
            found = os.statvfs(self._folder)
            usable = (found.f_blocks - found.f_bfree + found.f_bavail) * found.f_frsize
            taken, whole = usable - found.f_bavail * found.f_frsize, usable
        if 100 * (taken + size) >= FULL_PCT * whole:
            raise ProtocolError(
                "insufficient_storage",
                f"The encrypted copy of the file has {size} bytes, and with it more than {FULL_PCT:.0f} % of "
                f"{self._budget()} would be taken. Nothing was sent. Free some space, or wait until other "
                "files have left.",
            )
        self._shared_since += size

    def _budget(self) -> str:
        if self._settings.reserved_bytes is None:
            return f"the file system of {self._folder}"
        return "[disk] reserved_bytes"

    def _used_now(self) -> Used:
        """Return the sizes as last read, plus the bytes queued and received since."""
        grown = max(0, self._queued_bytes() - self._queued_then)
        return Used(
            self._used.outbox + grown,
            self._used.inbox + self._received_since,
            self._used.files + self._shared_since,
            self._used.other,
        )

    def _pct(self, used: Used) -> float:
        return 100 * used.total / (self._settings.reserved_bytes or 1)

    def _refuse(self, room: Room) -> Answer | None:
        if room.disk_pct >= FULL_PCT:
            text = self._disk_text(room.disk_pct)
        elif room.queue_pct >= 100:
            text = _QUEUE_TEXT
        else:
            return None
        message = f"{text} Nothing of this send was kept: send it again then."
        return Answer(507, {"error": "insufficient_storage", "message": message})

    def _disk_text(self, pct: float) -> str:
        if self._settings.reserved_bytes is None:
            return f"The file system of {self._folder} is {pct:.0f} % full: free some space."
        used = self._used_now()
        sizes = {
            "outbox": used.outbox,
            "inbox": used.inbox,
            "shared files": used.files,
            "other files": used.other,
        }
        parts = ", ".join(f"{name} {_mb(size)}" for name, size in sizes.items())
        return (
            f"{pct:.0f} % of [disk] reserved_bytes is taken in {self._folder} ({parts}): raise it, remove "
            "delivered payloads (claudemesh daemon outbox prune --confirm), or acknowledge messages that "
            "are read."
        )


_QUEUE_TEXT = (
    "The queue is full ([outbox] max_queue_bytes): wait until the broker has taken some of it, "
    "or raise the limit."
)


def storage_texts(path: Path, error: StorageError | None) -> tuple[str | None, str | None]:
    """Return the messages of `disk_full` and of an unavailable outbox, for the outcome of its last commit."""
    if error is None:
        return None, None
    if isinstance(error, StorageFull):
        full = (
            f"The disk that holds {path.parent} is full, so new sends are refused; accepted ones are safe. "
            "Free some space: sending goes on by itself."
        )
        return full, None
    return None, f"Sends cannot be written: {error}. It is tried again every second."


def _available(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
