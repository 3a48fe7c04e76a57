"""Uploads: the bytes of parts, in order, to the store of the broker.

Memory: an upload holds two pieces of about 1 MiB, one that is written and one that arrives. The rest stays
unread at the client.

A part that was taken may not be on the disk yet: an embedded broker syncs every 8 MiB, beside the writing of
the next ones, and at the end. At most 16 MiB are not synced. After a crash an upload goes on at the last
sync, so its client keeps the blob until it is complete.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

from msgspec import Struct, field

from claudemesh.broker.blobs.ranges import LEAST_PART, Part
from claudemesh.broker.store.blobs import Blob, BlobStore
from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime.lived import LivedClock
from claudemesh.runtime.services import TaskOwner
from claudemesh.runtime.uncached import Bytes

Find: TypeAlias = Callable[[], Awaitable[Blob]]
PartOf: TypeAlias = Callable[[Blob], Part]
HangUp: TypeAlias = Callable[[], None]

# A write ends at a multiple of this. On Postgres it is a row.
_PIECE: Final = 1 << 20
# Uploads whose end is not synced, as far as it is remembered. A forgotten one goes on at its last sync.
_REMEMBERED: Final = 256


class ClientGone(Exception):
    """The client has ended the connection before the end of its part."""


class Progress(Struct, frozen=True):
    """The state of an upload after a part: the next byte that the broker takes.

    `is_new`: the part was not one of a blob that was complete before.
    """

    blob: Blob
    offset: int
    is_new: bool

    @property
    def complete(self) -> bool:
        """Whether the whole blob is on the disk, with the right hash."""
        return self.offset == self.blob.size


class _Mark(Struct):
    """The end of an upload that is not synced, and where the last sync that was begun ends.

    `failure` is that of the sync: the bytes behind the last good one do not count.
    """

    end: int
    syncing: int
    failure: Exception | None = None


class _Turn(Struct):
    """The requests for one blob. One of them writes; `hang_up` ends it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0
    hang_up: HangUp = lambda: None


class Uploads:
    """Takes parts of uploads. Of two requests for one blob the newer one ends the older one."""

    def __init__(self, store: BlobStore, lived: LivedClock) -> None:
        self._store = store
        self._lived = lived
        self.tasks = TaskOwner()
        self._turns: dict[str, _Turn] = {}
        self._unsynced: OrderedDict[str, _Mark] = OrderedDict()
        # Syncs under way, by blob.
        self._syncs: dict[str, asyncio.Task[None]] = {}

    def offset(self, blob: Blob) -> int:
        """Return the next byte that an upload wants, as far as its row and this broker know."""
        mark = self._known(blob.id)
        return blob.received if mark is None else mark.end

    def forget(self, blob_id: str) -> None:
        """Forget an upload: its bytes are deleted, or an error has left them unknown."""
        self._unsynced.pop(blob_id, None)

    async def take(
        self, blob_id: str, find: Find, part_of: PartOf, pieces: AsyncIterator[bytes], hang_up: HangUp
    ) -> Progress:
        """Write the bytes of a part, and complete the blob with its last one.

        `find` returns the blob as it is now, or raises, and `part_of` the part of it. `hang_up` ends the
        request that sends the part, when a newer one begins. `ProtocolError` 416 with the wanted offset for
        a part behind a gap.
        """
        async with self._turn(blob_id, hang_up):
            if self._known(blob_id) is None:
                # The row is behind a sync that is under way.
                await self._synced(blob_id)
            blob = await find()
            part = part_of(blob)
            if blob.complete:
                # The answer to the last part was lost.
                return Progress(blob, blob.size, is_new=False)
            writer = _Writer(self, blob, await self._begin(blob))
            try:
                await writer.write(part, pieces)
                if writer.offset == blob.size and not await self._finish(blob, find):
                    raise ProtocolError(
                        "blob_hash_mismatch",
                        "The bytes have another SHA-256 than the upload was begun with. It begins from its "
                        "first byte: encrypt the file again.",
                    )
            except (ProtocolError, ClientGone):
                raise
            except Exception:
                self.forget(blob.id)
                raise
            return Progress(blob, writer.offset, is_new=True)

    async def append(self, blob: Blob, at: int, pieces: Sequence[Bytes]) -> None:
        """Write bytes at the end of an upload, and begin to sync them when it is time."""
        mark, end = self._unsynced.get(blob.id), at + sum(map(len, pieces))
        if mark is not None and mark.failure is not None:
            raise mark.failure
        if not await self._store.append(blob.id, at, pieces, self._lived.now_ms()):
            self.forget(blob.id)
            raise _interrupted()
        if not self._store.sync_every:
            return
        if mark is None or self._unsynced.get(blob.id) is not mark:
            mark = _Mark(end, at)
        mark.end = end
        self._unsynced[blob.id] = mark
        self._unsynced.move_to_end(blob.id)
        while len(self._unsynced) > _REMEMBERED:
            self._unsynced.popitem(last=False)
        if end - mark.syncing >= self._store.sync_every and end < blob.size:
            await self._synced(blob.id)
            mark.syncing = end
            self._syncs[blob.id] = self.tasks.start(self._sync(blob.id, mark, end), "blob_sync")

    async def _sync(self, blob_id: str, mark: _Mark, end: int) -> None:
        """Sync an upload while its next bytes are written. The next write meets a failure."""
        try:
            if not await self._store.settle(blob_id, end, self._lived.now_ms()):
                mark.failure = _interrupted()
        except Exception as error:
            mark.failure = error
        finally:
            if self._syncs.get(blob_id) is asyncio.current_task():
                del self._syncs[blob_id]

    async def _synced(self, blob_id: str) -> None:
        """Wait for the sync that is under way."""
        if (sync := self._syncs.get(blob_id)) is not None:
            await asyncio.wait([sync])

    def _known(self, blob_id: str) -> _Mark | None:
        """Return the mark of an upload whose syncs have not failed."""
        mark = self._unsynced.get(blob_id)
        if mark is not None and mark.failure is not None:
            self.forget(blob_id)
            return None
        return mark

    async def _begin(self, blob: Blob) -> int:
        mark = self._known(blob.id)
        return await self._store.resume(blob) if mark is None else mark.end

    async def _finish(self, blob: Blob, find: Find) -> bool:
        await self._synced(blob.id)
        mark = self._unsynced.pop(blob.id, None)
        if mark is not None and mark.failure is not None:
            raise mark.failure
        return await self._store.finish(blob, self._lived.now_ms()) or (await find()).complete

    @asynccontextmanager
    async def _turn(self, blob_id: str, hang_up: HangUp) -> AsyncGenerator[None]:
        turn = self._turns.setdefault(blob_id, _Turn())
        turn.users += 1
        try:
            turn.hang_up()
            async with turn.lock:
                turn.hang_up = hang_up
                yield
        finally:
            turn.users -= 1
            if turn.users == 0:
                del self._turns[blob_id]
            elif turn.hang_up is hang_up:
                turn.hang_up = lambda: None


class _Writer:
    """Writes one part of one upload: a piece is written while the next one arrives."""

    def __init__(self, uploads: Uploads, blob: Blob, offset: int) -> None:
        # Everything before is written.
        self.offset = offset
        self._uploads = uploads
        self._blob = blob
        # Bytes that are not written yet, as they came; where they begin, and their number.
        self._held: list[Bytes] = []
        self._begins, self._size = offset, 0
        self._writing: asyncio.Task[None] | None = None
        self._failure: Exception | None = None

    async def write(self, part: Part, pieces: AsyncIterator[bytes]) -> None:
        """Write the bytes of a part that the broker has not yet; the others are not looked at."""
        if part.first > self.offset:
            raise ProtocolError(
                "range_not_satisfiable",
                f"The broker has {self.offset} bytes of the blob. Go on from there.",
                offset=self.offset,
            )
        try:
            await self._receive(part, pieces)
            await self._flush()
        except ClientGone:
            # Short parts would become as many rows.
            kept = self._size - self._size % LEAST_PART
            self._held, self._size = [b"".join(self._held)[:kept]], kept
            await self._flush()
            raise
        finally:
            await self._written()

    async def _receive(self, part: Part, pieces: AsyncIterator[bytes]) -> None:
        at = part.first
        async for piece in pieces:
            end = at + len(piece)
            if end > part.end:
                raise ProtocolError("invalid_range", "The body is longer than its Content-Range.")
            known = self._begins + self._size - at
            if known < len(piece):
                await self._hold(memoryview(piece)[max(known, 0) :])
            at = end
        if at < part.end:
            raise ProtocolError("invalid_range", "The body is shorter than its Content-Range.")

    async def _hold(self, piece: memoryview) -> None:
        while piece:
            room = _PIECE - (self._begins + self._size) % _PIECE
            self._held.append(piece[:room])
            self._size += len(self._held[-1])
            piece = piece[room:]
            if len(self._held[-1]) == room:
                await self._flush()

    async def _flush(self) -> None:
        """Begin to write what is held, when what was written before is done."""
        await self._written()
        if self._size:
            writing = self._append(self._begins, self._held, self._size)
            self._writing = self._uploads.tasks.start(writing, "blob_write")
            self._begins += self._size
            self._held, self._size = [], 0

    async def _append(self, at: int, pieces: Sequence[Bytes], size: int) -> None:
        try:
            await self._uploads.append(self._blob, at, pieces)
        except Exception as error:
            self._failure = error
        else:
            self.offset = at + size

    async def _written(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            await asyncio.wait([writing])
            if self._failure is not None:
                raise self._failure


def _interrupted() -> ProtocolError:
    return ProtocolError(
        "upload_interrupted",
        "The upload was deleted, goes on at another broker, or its owner has left. Begin it again.",
    )
