"""Uploads: the bytes of parts, in order, to the store of the broker.

Memory: an upload holds two pieces of at most 1 MiB, one that is written and one that arrives. The rest stays
unread at the client.

A part that was taken may not be on the disk yet: an embedded broker syncs every 8 MiB and at the end. After a
crash an upload goes on at the last sync, so its client keeps the blob until it is complete.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from claudemesh.broker.blobs.ranges import LEAST_PART, Part
from claudemesh.broker.store.blobs import Blob, BlobStore
from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime.lived import LivedClock
from claudemesh.runtime.services import TaskOwner

Find: TypeAlias = Callable[[], Awaitable[Blob]]
PartOf: TypeAlias = Callable[[Blob], Part]
HangUp: TypeAlias = Callable[[], None]

# Bytes of one write: a row of a shared database, or a piece of a file.
_ROW: Final = 1 << 20
_PIECE: Final = 256 << 10
# Uploads whose end is not synced, as far as it is remembered. A forgotten one goes on at its last sync.
_REMEMBERED: Final = 256


class ClientGone(Exception):
    """The client has ended the connection before the end of its part."""


@dataclass(frozen=True, slots=True)
class Progress:
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


@dataclass(slots=True)
class _Turn:
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
        # By blob, the offset behind the last byte, and the offset of the last sync.
        self._unsynced: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def offset(self, blob: Blob) -> int:
        """Return the next byte that an upload wants, as far as its row and this broker know."""
        known = self._unsynced.get(blob.id)
        return blob.received if known is None else known[0]

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
            blob = await find()
            part = part_of(blob)
            if blob.complete:
                # The answer to the last part was lost.
                return Progress(blob, blob.size, is_new=False)
            writer = _Writer(self, blob, await self._begin(blob), self._store.sync_every == 0)
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

    async def append(self, blob: Blob, at: int, data: bytes) -> None:
        """Write bytes at the end of an upload; sync them with those before when it is time."""
        synced = self._unsynced.get(blob.id, (at, at))[1]
        end = at + len(data)
        settle = end == blob.size or end - synced >= self._store.sync_every
        if not await self._store.append(blob.id, at, data, self._lived.now_ms(), settle=settle):
            self.forget(blob.id)
            raise ProtocolError(
                "upload_interrupted",
                "The upload was deleted, goes on at another broker, or its owner has left. Begin it again.",
            )
        if settle:
            self.forget(blob.id)
            return
        self._unsynced[blob.id] = (end, synced)
        self._unsynced.move_to_end(blob.id)
        while len(self._unsynced) > _REMEMBERED:
            self._unsynced.popitem(last=False)

    async def _begin(self, blob: Blob) -> int:
        known = self._unsynced.get(blob.id)
        return await self._store.resume(blob) if known is None else known[0]

    async def _finish(self, blob: Blob, find: Find) -> bool:
        self.forget(blob.id)
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

    def __init__(self, uploads: Uploads, blob: Blob, offset: int, is_shared: bool) -> None:
        # Everything before is written.
        self.offset = offset
        self._uploads = uploads
        self._blob = blob
        self._buffer = bytearray()
        self._begins = offset  # of the buffer
        self._piece = _ROW if is_shared else _PIECE
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
            await self._flush(len(self._buffer))
        except ClientGone:
            # Short parts would become as many rows.
            await self._flush(len(self._buffer) - len(self._buffer) % LEAST_PART)
            raise
        finally:
            await self._written()

    async def _receive(self, part: Part, pieces: AsyncIterator[bytes]) -> None:
        at = part.first
        async for piece in pieces:
            end = at + len(piece)
            if end > part.end:
                raise ProtocolError("invalid_range", "The body is longer than its Content-Range.")
            self._buffer += piece[max(0, self._begins + len(self._buffer) - at) :]
            at = end
            if len(self._buffer) >= self._piece:
                await self._flush(len(self._buffer))
        if at < part.end:
            raise ProtocolError("invalid_range", "The body is shorter than its Content-Range.")

    async def _flush(self, size: int) -> None:
        """Begin to write the buffer, when what was written before is done."""
        await self._written()
        if size:
            data = bytes(self._buffer) if size == len(self._buffer) else bytes(self._buffer[:size])
            self._buffer = bytearray()
            self._writing = self._uploads.tasks.start(self._append(self._begins, data), "blob_write")
            self._begins += size

    async def _append(self, at: int, data: bytes) -> None:
        try:
            await self._uploads.append(self._blob, at, data)
        except Exception as error:
            self._failure = error
        else:
            self.offset = at + len(data)

    async def _written(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            await asyncio.wait([writing])
            if self._failure is not None:
                raise self._failure
