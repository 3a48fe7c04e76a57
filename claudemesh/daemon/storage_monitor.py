"""Storage monitor: conditions and maintenance of the databases, and the disk budget."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from claudemesh.daemon.disk import DiskWatch, storage_texts
from claudemesh.daemon.files.store import FilesStore
from claudemesh.daemon.inbox.store import InboxStore
from claudemesh.daemon.outbox.drain import Drain
from claudemesh.daemon.outbox.store import OutboxStore
from claudemesh.daemon.settings import DaemonSettings
from claudemesh.home.paths import DaemonPaths
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.errors import StorageError, StorageUnavailable
from claudemesh.runtime.lived import LivedClock
from claudemesh.runtime.services import TaskOwner
from claudemesh.runtime.sqlite_upkeep import Upkeep

_REMOVED_AT_ONCE = 200


class StorageMonitor:
    """Watches the databases and the disk. It is created after the databases are open."""

    def __init__(
        self,
        paths: DaemonPaths,
        settings: DaemonSettings,
        outbox: OutboxStore,
        inbox: InboxStore,
        files: FilesStore,
        conditions: Conditions,
        lived: LivedClock,
        on_high: Callable[[Mapping[str, float]], None],
    ) -> None:
        # Composed once: the outbox reports each commit.
        self._outbox_db, self._inbox_db = paths.outbox_db, paths.inbox_db
        self._outbox = outbox
        self._inbox = inbox
        self._conditions = conditions
        self._lived = lived
        self._upkeeps = tuple(Upkeep(store.database, conditions) for store in (outbox, inbox, files))
        self.disk = DiskWatch(
            paths.root,
            settings,
            lambda: outbox.queued_bytes,
            on_high,
            conditions,
            self._upkeeps,
            self._make_room,
        )

    async def recover(self, drain: Drain, longest_wait_ms: int, tasks: TaskOwner) -> None:
        """Make rows pending that an earlier run left in flight. While the disk is full, retry and hold the
        drain."""
        try:
            await self._outbox.recover(self._lived.now_ms(), longest_wait_ms)
        except StorageUnavailable as error:
            self.outbox_storage(error)
            drain.hold()
            tasks.start(self._recover_later(drain, longest_wait_ms), "recover")

    def start(self, tasks: TaskOwner) -> None:
        """Start the tasks that watch and check."""
        tasks.start(self.disk.run(), "disk")
        for upkeep in self._upkeeps:
            tasks.start(upkeep.check(), "database_check")

    def prepare(self, settings: DaemonSettings) -> Callable[[], None]:
        """Return the commit of another disk budget."""

        def commit() -> None:
            self.disk.go_by(settings)

        return commit

    def outbox_storage(self, error: StorageError | None) -> None:
        """Set the outbox's condition from its last commit: an error, or None."""
        full, unavailable = storage_texts(self._outbox_db, error)
        self._conditions.set("disk_full", full)
        self._conditions.set("outbox_unavailable", unavailable)

    def inbox_storage(self, error: StorageError | None) -> None:
        """Set the inbox's condition from its last commit: an error, or None."""
        text = None
        if error is not None:
            text = (
                f"Received messages cannot be stored in {self._inbox_db} ({error}). They stay at the "
                "broker unacknowledged, and come again as soon as they can be stored."
            )
        self._conditions.set("inbox_unavailable", text)

    def link_trouble(self, text: str | None) -> None:
        """Set the condition for a local cause that keeps the link from opening, None to clear it."""
        self._conditions.set("link_cannot_open", text)

    async def _recover_later(self, drain: Drain, longest_wait_ms: int) -> None:
        backoff, failures = Backoff(initial_s=0.5, cap_s=5), 0
        while True:
            failures += 1
            await asyncio.sleep(backoff.delay_s(failures))
            try:
                await self._outbox.recover(self._lived.now_ms(), longest_wait_ms)
            except StorageUnavailable as error:
                self.outbox_storage(error)
            else:
                self.outbox_storage(None)
                drain.release()
                return

    async def _make_room(self) -> bool:
        """Delete the oldest acknowledged messages; return False when there are none."""
        return await self._inbox.remove_acknowledged(_REMOVED_AT_ONCE) > 0
