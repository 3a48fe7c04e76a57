"""Writing of a large file on a thread of its own, which another one syncs meanwhile.

The sync at the end has little left to do then, and the file has few bytes at a time that are not on the disk.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import TracebackType

from claudemesh.runtime.beside import Beside
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.uncached import BlockWriter

_SYNC_EVERY = 16 << 20


class SyncedWriting:
    """Writes to a descriptor in the order of the calls, until the end of the `with` block.

    A failure is raised by a later call. The caller syncs the file at the end. A sync that has failed leaves
    an empty file: the next one may succeed though its bytes are on no disk.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._writing = Beside()
        self._syncing = Beside()
        self._blocks: BlockWriter | None = None
        # Where the bytes of a call end, and what is called when they are in the file.
        self._waiting: deque[tuple[int, Callable[[], object]]] = deque()
        self._end = self._unsynced = 0
        self._lost: OSError | None = None

    def add(self, data: bytes, then: Callable[[], object] = lambda: None) -> None:
        """Write bytes behind the earlier ones, and call `then` when they are in the file.

        It is called on the thread that writes, which holds the bytes behind the last block until more come.
        """
        self._writing.do(partial(self._write, data, then))

    def wait(self) -> None:
        """Return when all is written. It may not be synced yet."""
        self._writing.do(self._flush)
        self._writing.wait()
        self._syncing.wait()

    def _write(self, data: bytes, then: Callable[[], object]) -> None:
        if self._blocks is None:
            self._blocks = BlockWriter(self._descriptor)
            self._end = self._blocks.end
        self._end += len(data)
        self._waiting.append((self._end, then))
        self._blocks.add(data)
        self._written(self._blocks.end)
        self._unsynced += len(data)
        if self._unsynced >= _SYNC_EVERY:
            self._unsynced = 0
            self._syncing.do(self._sync)

    def _flush(self) -> None:
        if self._blocks is not None:
            self._blocks.flush()
            self._written(self._blocks.end)

    def _written(self, end: int) -> None:
        while self._waiting and self._waiting[0][0] <= end:
            _, then = self._waiting.popleft()
            then()

    def _sync(self) -> None:
        try:
            failpoint("files.before_sync")
            os.fsync(self._descriptor)
        except OSError as error:
            self._lost = error
            raise

    def __enter__(self) -> SyncedWriting:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The last write may begin a sync.
        self._writing.__exit__(kind, error, trace)
        try:
            # Nothing is held behind `wait`, so that the caller has another error.
            with suppress(OSError):
                self._flush()
        finally:
            self._syncing.__exit__(kind, error, trace)
        if self._lost is not None:
            os.ftruncate(self._descriptor, 0)
            raise self._lost from None
