"""What a daemon does now and then: rows that are too old die, old payloads and messages go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from claudemesh.daemon.inbox.store import InboxStore
from claudemesh.daemon.outbox.age import MaxAgeError, max_age_hours
from claudemesh.daemon.outbox.store import OutboxStore
from claudemesh.daemon.settings import DaemonSettings
from claudemesh.protocol.features import Features
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.errors import StorageError
from claudemesh.runtime.exits import CONFIGURATION, ExitWith
from claudemesh.runtime.logs import get_logger

log = get_logger("housekeeping")

_EVERY_S = 60.0
_BATCH = 500
_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
DONE_PAYLOAD_MS = 72 * _HOUR_MS
_FOREVER_DAYS = 3650


class Housekeeping:
    """Ages the outbox by the broker's clock, and keeps both files from growing for ever."""

    def __init__(
        self,
        outbox: OutboxStore,
        inbox: InboxStore,
        clock: Clock,
        settings: DaemonSettings,
        on_expired: Callable[[Sequence[str]], None],
        keep_clock: Callable[[], None] = lambda: None,
    ) -> None:
        self._outbox = outbox
        self._inbox = inbox
        self._clock = clock
        self._settings = settings
        self._on_expired = on_expired
        self._keep_clock = keep_clock
        self._wake = asyncio.Event()
        self._max_age_ms: int | None = None
        self._features: Features | None = None
        self._dedupe_days = _FOREVER_DAYS
        self._broker_offset_ms = 0.0

    def broker_reached(self, features: Features, server_time_ms: int) -> None:
        """Take the broker's clock and window. `ExitWith` 78: the configured age reaches past the window."""
        self._max_age_ms = _max_age_ms(features, self._settings)
        self._features = features
        self._dedupe_days = features.dedupe_retention_days or _FOREVER_DAYS
        self._broker_offset_ms = server_time_ms - self._clock.monotonic() * 1000
        self._wake.set()

    def use(self, settings: DaemonSettings) -> None:
        """Go by other settings. `ExitWith` 78, and nothing changed, when the broker's window forbids them."""
        if self._features is not None:
            age_ms = _max_age_ms(self._features, settings)
            self._max_age_ms = None if self._max_age_ms is None else age_ms
        self._settings = settings
        self._wake.set()

    def broker_lost(self) -> None:
        """Nothing grows too old while the broker cannot be reached."""
        self._max_age_ms = None

    async def run(self) -> None:
        """Work until cancelled; a storage that fails is tried again next time."""
        while True:
            self._wake.clear()
            self._keep_clock()
            try:
                await self.expire()
                await self.tidy()
            except StorageError as error:
                log.warning("housekeeping_failed", error=str(error))
            try:
                await asyncio.wait_for(self._wake.wait(), _EVERY_S)
            except TimeoutError:
                continue

    async def expire(self) -> None:
        """Give up pending rows that are older than the broker's window allows."""
        while self._max_age_ms is not None:
            before_ms = int(self._broker_now_ms()) - self._max_age_ms
            row_ids = await self._outbox.expire(before_ms, _BATCH)
            if row_ids:
                log.warning("outbox_expired", count=len(row_ids))
                self._on_expired(row_ids)
            if len(row_ids) < _BATCH:
                return

    async def tidy(self) -> None:
        """Drop payloads of rows done three days ago, and messages past their retention."""
        now_ms = self._clock.wall_ms()
        while await self._outbox.drop_payloads(now_ms - DONE_PAYLOAD_MS, _BATCH) == _BATCH:
            pass
        before_ms = now_ms - self._settings.inbox_retention_days * _DAY_MS
        forget_ms = now_ms - self._dedupe_days * _DAY_MS
        while await self._inbox.prune(before_ms, now_ms, forget_ms, _BATCH) == _BATCH:
            pass

    def _broker_now_ms(self) -> float:
        return self._broker_offset_ms + self._clock.monotonic() * 1000


def _max_age_ms(features: Features, settings: DaemonSettings) -> int:
    try:
        hours = max_age_hours(
            features,
            default=settings.max_age_hours_default,
            cap=settings.max_age_hours_cap,
            override=settings.max_age_hours_override,
        )
    except MaxAgeError as error:
        raise ExitWith(CONFIGURATION, "outbox_max_age_above_dedupe_window", f"{error}.") from error
    return hours * _HOUR_MS
