"""Housekeeping: ends rows that are too old, deletes old payloads and messages, and gives free memory back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from claudemesh.daemon.inbox.store import InboxStore
from claudemesh.daemon.outbox.age import MaxAgeError, OutboxClocks, max_age_hours
from claudemesh.daemon.outbox.store import OutboxStore
from claudemesh.daemon.outbox.types import Expired
from claudemesh.daemon.settings import DaemonSettings
from claudemesh.protocol.features import Features
from claudemesh.runtime.allocator import SpareMemory
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


class DropRequests(Protocol):
    """Drops requests of shared files."""

    async def __call__(self, now_ms: int, kept_ms: int, limit: int) -> int:
        """Return the number of rows that were changed."""
        ...


class Housekeeping:
    """Applies the maximum age to the outbox (outbox/age.py) and retention to both databases."""

    def __init__(
        self,
        outbox: OutboxStore,
        inbox: InboxStore,
        clocks: OutboxClocks,
        settings: DaemonSettings,
        on_expired: Callable[[Sequence[Expired]], None],
        keep_clock: Callable[[], None] = lambda: None,
        expire_keys: Callable[[], object] = lambda: None,
        drop_requests: DropRequests | None = None,
    ) -> None:
        """`expire_keys` removes archived keys whose grace period has passed. `drop_requests` drops the
        requests of shared files that have come to their end (`FilesStore`)."""
        self._outbox = outbox
        self._inbox = inbox
        self._clocks = clocks
        self._settings = settings
        self._on_expired = on_expired
        self._keep_clock = keep_clock
        self._expire_keys = expire_keys
        self._drop_requests = drop_requests
        self._wake = asyncio.Event()
        self._max_age_ms: int | None = None
        self._features: Features | None = None
        self._dedupe_days = _FOREVER_DAYS
        self._spare = SpareMemory()

    def link_up(self, features: Features) -> None:
        """Take the broker's dedupe window. Raise `ExitWith` 78 when the configured age is longer."""
        self._max_age_ms = _max_age_ms(features, self._settings)
        self._features = features
        self._dedupe_days = features.dedupe_retention_days or _FOREVER_DAYS
        self._wake.set()

    def prepare(self, settings: DaemonSettings) -> Callable[[], None]:
        """Return the commit of other settings. Raise `ExitWith` 78 when the broker's window does not allow
        them."""
        age_ms = None if self._features is None else _max_age_ms(self._features, settings)

        def commit() -> None:
            if self._max_age_ms is not None:
                self._max_age_ms = age_ms
            self._settings = settings
            self._wake.set()

        return commit

    def link_down(self) -> None:
        """Stop the expiry of rows while the broker cannot be reached."""
        self._max_age_ms = None

    async def run(self) -> None:
        """Run both jobs regularly until cancelled. After a storage error the next round tries again."""
        while True:
            self._wake.clear()
            self._keep_clock()
            try:
                self._expire_keys()
                await self.expire()
                await self.tidy()
            except (StorageError, OSError) as error:
                log.warning("housekeeping_failed", error=str(error))
            self._spare.give_back()
            try:
                async with asyncio.timeout(_EVERY_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def expire(self) -> None:
        """Make pending rows dead that are older than the broker's window allows."""
        while self._max_age_ms is not None:
            now = self._clocks.now()
            sent_before_ms = (now.broker_ms or 0) - self._max_age_ms
            expired = await self._outbox.expire(now.lived_ms - self._max_age_ms, sent_before_ms, _BATCH)
            if expired:
                log.warning("outbox_expired", count=len(expired))
                self._on_expired(expired)
            if len(expired) < _BATCH:
                return

    async def tidy(self) -> None:
        """Delete payloads of rows done three days ago, requests of files done then, and messages older than
        their retention.

        All are measured by the host-lived clock.
        """
        now_ms = self._clocks.now().lived_ms
        while await self._outbox.drop_payloads(now_ms - DONE_PAYLOAD_MS, _BATCH) == _BATCH:
            pass
        while (
            self._drop_requests is not None
            and await self._drop_requests(now_ms, DONE_PAYLOAD_MS, _BATCH) == _BATCH
        ):
            pass
        kept_ms = self._settings.inbox_retention_days * _DAY_MS
        while await self._inbox.prune(kept_ms, self._dedupe_days * _DAY_MS, _BATCH) == _BATCH:
            pass


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
