"""The clocks of a broker: wall time for showing, and the database's lived clock for decisions.

The lived clock (runtime/lived.py) is kept in the database. It begins at the wall time of the first use and
then advances with the monotonic clock alone, so that setting a clock, on this host or on the database's,
moves nothing: leases, retention, job schedules and the ephemeral reaper go by it. Time while no broker runs
counts only when the same host stayed up; otherwise everything is kept longer. Clients are shown wall time,
and the expiry of an invite is compared with it.

Brokers that share a database share its lived clock. Each writes its own position every few seconds and takes
over a later one. A position is a lower bound of the time that has passed: the last one read, plus the
monotonic time since.
"""

from __future__ import annotations

import asyncio

from claudemesh.broker.store.protocol import Store
from claudemesh.runtime.allocator import SpareMemory
from claudemesh.runtime.clock import Clock, OffsetClock
from claudemesh.runtime.errors import StorageError, StorageUnreachable
from claudemesh.runtime.lived import LivedClock, Mark, read_boot_id
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.services import OnCrash, TaskOwner

log = get_logger("broker.time")

_NOTED_EVERY_S = 60.0
# Brokers that share a database must agree on the clock to well within a lease.
_SHARED_EVERY_S = 10.0
_JUMP_MS = 300_000


class Timekeeper:
    """Keeps `wall`, the wall time of the database's server or of this host, and `lived`."""

    def __init__(self, store: Store, clock: Clock, on_crash: OnCrash) -> None:
        self.wall = OffsetClock(clock)
        self.lived = LivedClock(clock)
        self._store = store
        self._clock = clock
        self._known_ms = 0
        self._drift_ms = 0.0
        self._tasks = TaskOwner(on_crash)
        # Looked at with the same beat, so that an idle broker wakes no more often.
        self._spare = SpareMemory()

    async def start(self) -> None:
        """Read the clock's position from the database, and keep it from then on. Raises `StorageError`."""
        shared = self._store.cluster
        if shared is not None:
            self.wall.follow(await shared.now_ms())
        mark = await self._store.upkeep.lived_clock()
        boot_id = read_boot_id()
        if mark is None:
            mark = Mark(self.wall.wall_ms(), boot_id, round(self._clock.monotonic() * 1000))
        self.lived = LivedClock(self._clock, mark, boot_id)
        self._drift_ms = self._measure_ms()
        await self.note()
        every_s = _NOTED_EVERY_S if shared is None else _SHARED_EVERY_S
        self._tasks.start(self._run(every_s), "timekeeper")

    async def stop(self) -> None:
        """Write the last position."""
        await self._tasks.stop()
        await self._try_to_note()

    async def note(self) -> None:
        """Write the position, or take over the one in the database when it is later."""
        mark = self.lived.mark()
        held_ms = await self._store.upkeep.note_lived_clock(mark, self._known_ms)
        if held_ms < self._known_ms:
            log.warning("lived_clock_replaced", known_ms=self._known_ms, found_ms=held_ms)
            self.lived.restart_at(held_ms)
        self.lived.at_least(held_ms)
        self._known_ms = held_ms

    def look_for_jump(self) -> None:
        """Log a jump of the wall clock. Only times that are shown depend on it."""
        drift_ms = self._measure_ms()
        if abs(drift_ms - self._drift_ms) > _JUMP_MS:
            log.warning(
                "clock_jumped",
                seconds=round((drift_ms - self._drift_ms) / 1000),
                detail="Times that are shown may be wrong; nothing is deleted or ended because of it.",
            )
        self._drift_ms = drift_ms

    def _measure_ms(self) -> float:
        return self.wall.wall_ms() - self._clock.monotonic() * 1000

    async def _run(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            self.look_for_jump()
            await self._try_to_note()
            self._spare.give_back()

    async def _try_to_note(self) -> None:
        try:
            await self.note()
        except StorageUnreachable:
            # The condition of the broker says so, once for an outage of any length.
            pass
        except StorageError as error:
            log.warning("lived_clock_not_noted", error=str(error))
