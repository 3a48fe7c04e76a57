"""Detection that an embedded broker's database file was restored from an older copy.

A file beside the database holds a high-water mark, the newest accepted history id. A database below the mark
has lost messages and gets a new store epoch. This is a hint only: a copy of the whole directory has its own
mark. Daemons notice any restore by themselves (daemon/restore/reconcile.py). A new epoch makes them ask about
all done sends.
"""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

from claudemesh.broker.store.sqlite import SqliteStore
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.errors import StorageError
from claudemesh.runtime.files import UnsafeFile, read_private, write_atomic
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.oserrors import explain
from claudemesh.runtime.services import Watcher, repeat

log = get_logger("broker")

_EVERY_S = 1.0
_BACKOFF = Backoff(initial_s=1, cap_s=30)


class HighWater:
    """The high-water mark, the file `high_water`. It follows the database within 1 s, never ahead."""

    def __init__(self, path: Path, store: SqliteStore, conditions: Conditions) -> None:
        self._conditions = conditions
        self._path = path
        self._store = store
        self._noted = 0

    async def check(self) -> None:
        """Compare the mark with the database. Call this before the store epoch is read."""
        self._noted = _read(self._path)
        newest = await self._store.newest_history()
        if newest < self._noted:
            log.warning("database_is_older_than_it_was", accepted=newest, noted=self._noted)
            await self._store.renew_store_epoch(secrets.token_hex(16))
        await self.try_to_note()

    async def note(self) -> None:
        """Write the mark if it has changed."""
        newest = await self._store.newest_history()
        if newest != self._noted:
            # In a thread: a disk that stalls must not stall the event loop.
            await asyncio.to_thread(write_atomic, self._path, b"%d\n" % newest)
            self._noted = newest

    async def run(self, watcher: Watcher) -> None:
        """Follow the database until cancelled."""
        await repeat(self.try_to_note, _EVERY_S, "high_water", _BACKOFF, watcher)

    async def try_to_note(self) -> None:
        """Write the mark if that is possible. A mark that is behind does no harm."""
        try:
            await self.note()
        except StorageError as error:
            log.debug("high_water_not_noted", error=str(error))
        except OSError as error:
            self._conditions.begin(
                "high_water_not_noted",
                f"{self._path.name} cannot be written ({explain(error)}). Messages are not affected; a "
                "database that is restored from a backup now would not be noticed. It is tried again every "
                "second.",
                file=str(self._path),
            )
        else:
            self._conditions.end("high_water_not_noted")


def _read(path: Path) -> int:
    try:
        return int(read_private(path))
    except (OSError, UnsafeFile, ValueError):
        return 0
