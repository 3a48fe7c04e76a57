"""Blobs on Postgres: rows, and their bytes in chunks, so that every broker serves every blob.

A chunk is written in the transaction that counts it. A broker that counts from an older offset than the row
has writes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

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
from claudemesh.broker.store.postgres.pools import Pools
from claudemesh.broker.store.postgres.queries import BLOBS as _B
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.uncached import Bytes


class PostgresBlobs:
    """Implements `BlobStore`."""

    sync_every = 0

    def __init__(self, pools: Pools) -> None:
        self._db = pools

    async def ticket_key(self, fresh: bytes) -> bytes:
        async def work(connection: Any) -> bytes:
            await connection.execute(_B["ticket_key_make"], fresh)
            key: bytes = await connection.fetchval(_B["ticket_key"])
            return key

        return await self._db.transaction(work)

    async def begin(self, new: NewBlob, bounds: BlobBounds) -> Blob | BlobRefused:
        async def work(connection: Any) -> Blob | BlobRefused:
            await connection.execute(_B["blob_mesh_lock"], new.mesh_id)
            content = (new.mesh_id, new.owner_member_id, new.sha256, new.size)
            row = await connection.fetchrow(_B["blob_of_content"], *content)
            if row is not None:
                await connection.execute(_B["blob_again"], row[0], new.lived_ms)
                return _blob(row)
            usage = await connection.fetchrow(_B["blob_usage"], new.mesh_id, new.owner_member_id)
            refused = judge_upload(BlobUsage(*usage), new.size, bounds)
            if refused is not None:
                return refused
            values = (new.id, new.mesh_id, new.owner_member_id, new.size, new.sha256, new.lived_ms)
            await connection.execute(_B["blob_insert"], *values)
            return _blob(await connection.fetchrow(_B["blob"], new.id, new.mesh_id))

        return await self._db.transaction(work)

    async def get(self, mesh_id: str, blob_id: str) -> Blob | None:
        rows = await self._db.fetch(_B["blob"], blob_id, mesh_id)
        return _blob(rows[0]) if rows else None

    async def resume(self, blob: Blob) -> int:
        return blob.received

    async def append(self, blob_id: str, at: int, pieces: Sequence[Bytes], lived_ms: int) -> bool:
        data = b"".join(pieces)

        async def work(connection: Any) -> bool:
            values = (blob_id, at, at + len(data), lived_ms)
            if await connection.fetchval(_B["blob_progress"], *values) is None:
                return False
            await connection.execute(_B["blob_chunk_add"], blob_id, at, data)
            return True

        counted = not data or await self._db.transaction(work)
        failpoint("blob.after_progress")
        return counted

    async def settle(self, blob_id: str, end: int, lived_ms: int) -> bool:
        """Do nothing: what was appended is on the disk."""
        return True

    async def finish(self, blob: Blob, lived_ms: int) -> bool:
        found, at = hashlib.sha256(), 0
        while at < blob.size and (piece := await self.read(blob, at, blob.size)):
            found.update(piece)
            at += len(piece)
        if at == blob.size and found.digest() == blob.sha256:
            done = await self._db.execute(_B["blob_complete"], blob.id, lived_ms) > 0
            failpoint("blob.after_complete")
            return done

        async def again(connection: Any) -> None:
            if await connection.fetchval(_B["blob_restart"], blob.id) is not None:
                await connection.execute(_B["blob_chunks_delete"], blob.id)

        await self._db.transaction(again)
        return False

    async def read(self, blob: Blob, at: int, limit: int) -> bytes:
        rows = await self._db.fetch(_B["blob_chunk"], blob.id, at)
        if not rows:
            return b""
        begins, data = rows[0]
        piece: bytes = data[at - begins : at - begins + limit]
        return piece

    async def attach(self, blob: Blob, client_message_id: str, *, persistent: bool) -> bool:
        async def work(connection: Any) -> bool:
            send = (blob.mesh_id, blob.owner_member_id, client_message_id)
            row = await connection.fetchrow(_B["blob_announcement"], *send)
            if row is None:
                return False
            kind, ref = row
            await connection.execute(_B["blob_attach"], blob.id, persistent)
            if kind == "dm":
                await connection.execute(_B["blob_for_member"], blob.id, blob.mesh_id, bytes.fromhex(ref))
            elif kind == "topic":
                values = (blob.id, blob.mesh_id, ref, blob.owner_member_id)
                await connection.execute(_B["blob_for_subscribers"], *values)
            return True

        return await self._db.transaction(work)

    async def fetched(self, blob_id: str, member_id: str, lived_ms: int) -> None:
        await self._db.execute(_B["blob_fetched"], blob_id, member_id, lived_ms)

    async def delete(self, blob_id: str) -> bool:
        return await self._db.execute(_B["blob_delete"], blob_id) > 0

    async def sweep(self, lived_ms: int) -> int:
        async def work(connection: Any) -> int:
            values = (lived_ms - IDLE_MS, lived_ms - LIFE_MS, BATCH_BLOBS)
            return len(await connection.fetch(_B["blobs_over"], *values))

        return await self._db.transaction(work, patient=True)

    async def stored(self) -> Mapping[str, StoredBlobs]:
        return {str(row[0]): StoredBlobs(*row[1:]) for row in await self._db.fetch(_B["blobs_stored"])}

    async def check(self, after: str) -> BlobsChecked:
        rows = await self._db.fetch(_B["blobs_after"], after, BATCH_BLOBS)
        damaged = [row[0] for row in rows if row[3] and row[4] != row[1]]
        return BlobsChecked(damaged, len(rows), rows[-1][0] if len(rows) == BATCH_BLOBS else None)

    async def strays(self) -> frozenset[str]:
        return frozenset()

    async def remove_stray(self, blob_id: str) -> None:
        """Do nothing: a chunk has its row."""


def _blob(row: Any) -> Blob:
    return Blob(row[0], str(row[1]), str(row[2]), *row[3:])
