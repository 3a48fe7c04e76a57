"""The sweep of blobs: those that are over, and the comparison of rows with bytes, both ways.

Bytes without a row are deleted when they were found so a day of lived time before. A row without its bytes
stays: the folder may be missing only, and would be mounted again.
"""

from __future__ import annotations

from typing import Final

from claudemesh.broker.environment import Environment
from claudemesh.broker.store.blobs import IDLE_MS, BlobStore
from claudemesh.runtime.logs import get_logger

log = get_logger("broker.blobs")

MISSING: Final = "blob_bytes_missing"
_LOGGED: Final = 100


class BlobSweep:
    """Sweeps the blobs of a store."""

    def __init__(self, store: BlobStore, env: Environment) -> None:
        self._store = store
        self._env = env
        # Bytes without a row, with the lived time at which they were first found.
        self._strays: dict[str, int] = {}
        env.degraded.conditions.expect((MISSING,))

    async def run(self) -> tuple[int, int]:
        """Do one whole sweep; return how many blobs were deleted, and how many lack bytes."""
        deleted = 0
        while swept := await self._store.sweep(self._env.lived.now_ms()):
            deleted += swept
        self._env.metrics.blobs_deleted.inc(deleted)
        await self._remove_strays()
        damaged = await self._compare()
        stored = await self._store.stored()
        self._env.metrics.blobs_stored_bytes.set(sum(one.size for one in stored.values()))
        return deleted, damaged

    async def _remove_strays(self) -> None:
        now_ms = self._env.lived.now_ms()
        self._strays = {one: self._strays.get(one, now_ms) for one in await self._store.strays()}
        for blob_id, since_ms in self._strays.items():
            if now_ms - since_ms >= IDLE_MS:
                await self._store.remove_stray(blob_id)
                log.warning("blob_without_row_deleted", blob_id=blob_id)

    async def _compare(self) -> int:
        after: str | None = ""
        damaged = 0
        while after is not None:
            checked = await self._store.check(after)
            for blob_id in checked.damaged[: max(0, _LOGGED - damaged)]:
                log.error(MISSING, blob_id=blob_id)
            damaged += len(checked.damaged)
            after = checked.after
        text = (
            f"The bytes of {damaged} files are missing. Restore the folder blobs of the data directory, or "
            "let the files be sent again. The log of the broker has the ids."
        )
        self._env.degraded.conditions.set(MISSING, text if damaged else None)
        return damaged
