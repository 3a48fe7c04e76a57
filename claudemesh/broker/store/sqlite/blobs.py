"""Blobs of an embedded broker: rows on SQLite, bytes as files beside the database."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections import OrderedDict
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from claudemesh.broker.store.blobs import (
    BATCH_BLOBS,
    IDLE_MS,
    LIFE_MS,
    Blob,
    BlobBounds,
    BlobRefused,
    BlobsChecked,
    BlobUsage,
    NewBlob,
    StoredBlobs,
    judge_upload,
)
from claudemesh.broker.store.sqlite.blob_files import BlobFiles
from claudemesh.broker.store.sqlite.queries import BLOBS as _B
from claudemesh.runtime import yielding
from claudemesh.runtime.errors import StorageError
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.sqlite import Database
from claudemesh.runtime.uncached import BLOCK, Buffer, Bytes

log = get_logger("broker.blobs")

# Uploads whose hash is kept while they arrive. Another one is read again at its end.
_HASHES: Final = 256
# Memory for pieces of uploads that is kept for the next ones.
_BUFFERS: Final = 4


class Hash(Protocol):
    """A SHA-256 that grows."""

    def update(self, data: memoryview, /) -> None:
        """Add bytes."""
        ...

    def digest(self) -> bytes:
        """Return the hash of the bytes so far."""
        ...


class SqliteBlobs:
    """Implements `BlobStore`. A row is deleted before its file, so that a crash leaves a stray at most."""

    sync_every = 8 << 20

    def __init__(self, database: Database, folder: Path) -> None:
        self._db = database
        self._files = BlobFiles(folder)
        # By blob, the hash of its first bytes, and their number. All were written here, one behind the other.
        self._hashes: OrderedDict[str, tuple[int, Hash]] = OrderedDict()
        self._free: list[Buffer] = []

    async def ticket_key(self, fresh: bytes) -> bytes:
        def work(raw: sqlite3.Connection) -> bytes:
            raw.execute(_B["ticket_key_make"], (fresh,))
            return bytes(raw.execute(_B["ticket_key"]).fetchone()[0])

        # Without a write where there is a key: the disk may be full.
        row = await self._db.run(lambda raw: raw.execute(_B["ticket_key"]).fetchone())
        return bytes(row[0]) if row is not None else await self._db.transaction(work)

    async def begin(self, new: NewBlob, bounds: BlobBounds) -> Blob | BlobRefused:
        def work(raw: sqlite3.Connection) -> Blob | BlobRefused:
            content = (new.mesh_id, new.owner_member_id, new.sha256, new.size)
            row = raw.execute(_B["blob_of_content"], content).fetchone()
            if row is not None:
                raw.execute(_B["blob_again"], (row[0], new.lived_ms))
                return _blob(row)
            usage = raw.execute(_B["blob_usage"], (new.mesh_id, new.owner_member_id)).fetchone()
            refused = judge_upload(BlobUsage(*usage), new.size, bounds)
            if refused is not None:
                return refused
            values = (new.id, new.mesh_id, new.owner_member_id, new.size, new.sha256, new.lived_ms)
            raw.execute(_B["blob_insert"], values)
            return _blob(raw.execute(_B["blob"], (new.id, new.mesh_id)).fetchone())

        return await self._db.transaction(work)

    async def get(self, mesh_id: str, blob_id: str) -> Blob | None:
        row = await self._db.run(lambda raw: raw.execute(_B["blob"], (blob_id, mesh_id)).fetchone())
        return None if row is None else _blob(row)

    async def resume(self, blob: Blob) -> int:
        return await yielding.run(self._files.resume, blob.id, blob.received)

    async def append(self, blob_id: str, at: int, pieces: Sequence[Bytes], lived_ms: int) -> bool:
        known, running = self._hashes.pop(blob_id, (0, hashlib.sha256()))
        kept = running if known == at else None
        size = sum(map(len, pieces))
        buffer = self._free.pop() if self._free and size <= BLOCK else Buffer(max(size, BLOCK))
        # One write and one hash, each on its thread: a thread waits for the interpreter behind each call.
        data = buffer.fill(pieces)
        steps: list[Awaitable[object]] = [yielding.run(self._files.append, blob_id, at, data)]
        if kept is not None:
            steps.append(yielding.run(kept.update, data))
        # With a failure the hash is dropped, and so is the memory, which a thread may still use.
        is_written = (await asyncio.gather(*steps))[0] is True
        if size <= BLOCK and len(self._free) < _BUFFERS:
            self._free.append(buffer)
        if is_written and kept is not None:
            self._hashes[blob_id] = (at + size, kept)
            while len(self._hashes) > _HASHES:
                self._hashes.popitem(last=False)
        return is_written

    async def settle(self, blob_id: str, end: int, lived_ms: int) -> bool:
        if not await yielding.run(self._files.sync, blob_id):
            return False
        values = (blob_id, end, lived_ms)
        counted = await self._db.transaction(
            lambda raw: raw.execute(_B["blob_progress"], values).rowcount > 0
        )
        failpoint("blob.after_progress")
        return counted

    async def finish(self, blob: Blob, lived_ms: int) -> bool:
        known, running = self._hashes.pop(blob.id, (0, hashlib.sha256()))
        digest = running.digest() if known == blob.size else None
        if not await yielding.run(self._files.publish, blob.id, blob.size, blob.sha256, digest):
            await self._db.transaction(lambda raw: raw.execute(_B["blob_restart"], (blob.id,)))
            return False
        values = (blob.id, lived_ms)
        done = await self._db.transaction(lambda raw: raw.execute(_B["blob_complete"], values).rowcount > 0)
        failpoint("blob.after_complete")
        return done

    async def read(self, blob: Blob, at: int, limit: int) -> Bytes:
        return await yielding.run(self._files.read, blob.id, at, limit)

    async def attach(self, blob: Blob, client_message_id: str, *, persistent: bool) -> bool:
        def work(raw: sqlite3.Connection) -> bool:
            send = (blob.mesh_id, blob.owner_member_id, client_message_id)
            row = raw.execute(_B["blob_announcement"], send).fetchone()
            if row is None:
                return False
            kind, ref = row
            raw.execute(_B["blob_attach"], (blob.id, persistent))
            if kind == "dm":
                raw.execute(_B["blob_for_member"], (blob.id, blob.mesh_id, ref))
            elif kind == "topic":
                values = (blob.id, blob.mesh_id, ref, blob.owner_member_id)
                raw.execute(_B["blob_for_subscribers"], values)
            return True

        return await self._db.transaction(work)

    async def fetched(self, blob_id: str, member_id: str, lived_ms: int) -> None:
        values = (blob_id, member_id, lived_ms)
        await self._db.transaction(lambda raw: raw.execute(_B["blob_fetched"], values))

    async def delete(self, blob_id: str) -> bool:
        gone = await self._db.transaction(lambda raw: raw.execute(_B["blob_delete"], (blob_id,)).rowcount > 0)
        try:
            await asyncio.to_thread(self._files.remove, blob_id)
        except StorageError as error:
            # The row is deleted, and with it the blob. The sweep finds the file.
            log.warning("blob_file_not_deleted", blob_id=blob_id, error=str(error))
        return gone

    async def sweep(self, lived_ms: int) -> int:
        values = (lived_ms - IDLE_MS, lived_ms - LIFE_MS, BATCH_BLOBS)
        rows = await self._db.transaction(lambda raw: raw.execute(_B["blobs_over"], values).fetchall())
        for (blob_id,) in rows:
            await asyncio.to_thread(self._files.remove, blob_id)
        return len(rows)

    async def stored(self) -> Mapping[str, StoredBlobs]:
        rows = await self._db.run(lambda raw: raw.execute(_B["blobs_stored"]).fetchall())
        return {row[0]: StoredBlobs(*row[1:]) for row in rows}

    async def check(self, after: str) -> BlobsChecked:
        values = (after, BATCH_BLOBS)
        rows = await self._db.run(lambda raw: raw.execute(_B["blobs_after"], values).fetchall())
        damaged = [
            blob_id
            for blob_id, size, _, complete in rows
            if complete and await asyncio.to_thread(self._files.size, blob_id) != size
        ]
        return BlobsChecked(damaged, len(rows), rows[-1][0] if len(rows) == BATCH_BLOBS else None)

    async def strays(self) -> frozenset[str]:
        # The files first: a row is there before its file is made, and longer than it.
        found, after = await asyncio.to_thread(self._files.ids), ""
        while found:
            values = (after, BATCH_BLOBS)
            rows = await self._db.run(lambda raw, v=values: raw.execute(_B["blobs_after"], v).fetchall())  # type: ignore[misc]
            found -= {row[0] for row in rows}
            if len(rows) < BATCH_BLOBS:
                break
            after = rows[-1][0]
        return frozenset(found)

    async def remove_stray(self, blob_id: str) -> None:
        await asyncio.to_thread(self._files.remove, blob_id)


def _blob(row: Any) -> Blob:
    return Blob(*row[:6], *map(bool, row[6:]))
