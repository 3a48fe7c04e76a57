"""Blobs, the encrypted files that members share: rows, quotas, and the operations of a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

from msgspec import Struct

from claudemesh.runtime.uncached import Bytes

_DAY_MS: Final = 86_400_000
# Lived time after which a blob is deleted: without progress or after the last recipient has fetched it, and
# after its completion.
IDLE_MS: Final = _DAY_MS
LIFE_MS: Final = 30 * _DAY_MS
# Blobs that one step of the sweep deletes, or of the check compares.
BATCH_BLOBS: Final = 100

Reason: TypeAlias = Literal[
    "mesh_quota_exceeded", "member_quota_exceeded", "too_many_uploads", "too_many_blobs"
]


class Blob(Struct, frozen=True):
    """A blob as its row has it. `received` bytes from its beginning are on the disk.

    `attached`: a message that announces it was accepted since it was last begun.
    """

    id: str
    mesh_id: str
    owner_member_id: str
    size: int
    sha256: bytes
    received: int
    complete: bool
    attached: bool
    persistent: bool


class NewBlob(NamedTuple):
    """The wish of a member to upload a blob. `id` is the id that it gets if it is a new one."""

    id: str
    mesh_id: str
    owner_member_id: str
    size: int
    sha256: bytes
    lived_ms: int


class BlobBounds(Struct, frozen=True):
    """Bounds of blobs: bytes of a mesh and of a member; unfinished uploads and all blobs of a member."""

    mesh_bytes: int
    member_bytes: int
    uploads: int
    blobs: int


class BlobUsage(Struct, frozen=True):
    """Bytes of a mesh and of one member, and the number of the member's blobs and unfinished uploads.

    An unfinished upload counts with its whole size.
    """

    mesh_bytes: int
    member_bytes: int
    blobs: int
    uploads: int


class StoredBlobs(Struct, frozen=True):
    """The blobs of one mesh: their bytes, their number, and how many of them are unfinished uploads."""

    size: int
    blobs: int
    uploads: int


class BlobRefused(Struct, frozen=True):
    """An upload that may not begin; nothing was written. `limit` is the bound that it would pass."""

    reason: Reason
    limit: int


class BlobsChecked(Struct, frozen=True):
    """One step of a check: the ids of complete blobs whose bytes are missing, and where to go on."""

    damaged: Sequence[str]
    rows: int
    after: str | None


def judge_upload(usage: BlobUsage, size: int, bounds: BlobBounds) -> BlobRefused | None:
    """Decide whether a member may begin an upload of `size` bytes."""
    if usage.uploads >= bounds.uploads:
        return BlobRefused("too_many_uploads", bounds.uploads)
    if usage.blobs >= bounds.blobs:
        return BlobRefused("too_many_blobs", bounds.blobs)
    if usage.member_bytes + size > bounds.member_bytes:
        return BlobRefused("member_quota_exceeded", bounds.member_bytes)
    if usage.mesh_bytes + size > bounds.mesh_bytes:
        return BlobRefused("mesh_quota_exceeded", bounds.mesh_bytes)
    return None


class BlobStore(Protocol):
    """Blobs with their bytes: files of the data directory, or rows of the database.

    One caller at a time writes to a blob of the embedded store. On Postgres two writers of one blob do not
    spoil it: the later one is refused.
    """

    @property
    def sync_every(self) -> int:
        """Bytes after which an upload is to be synced; 0 where each piece is on the disk on return."""
        ...

    async def ticket_key(self, fresh: bytes) -> bytes:
        """Return the key of tickets; `fresh` becomes it where there is none."""
        ...

    async def begin(self, new: NewBlob, bounds: BlobBounds) -> Blob | BlobRefused:
        """Write the row of a new upload, in one transaction with its judgement (`judge_upload`).

        A blob of the same owner, hash and size is returned instead, so that a lost answer costs nothing.
        """
        ...

    async def get(self, mesh_id: str, blob_id: str) -> Blob | None:
        """Return a blob, None when the mesh has none of this id."""
        ...

    async def resume(self, blob: Blob) -> int:
        """Prepare an unfinished upload; return the offset of the next byte."""
        ...

    async def append(self, blob_id: str, at: int, pieces: Sequence[Bytes], lived_ms: int) -> bool:
        """Write bytes at the end of an upload. False: the blob is gone, or another writer came first.

        Where `sync_every` is 0 they count on return, and those for a complete blob and those of an owner that
        is no active member are refused too.
        """
        ...

    async def settle(self, blob_id: str, end: int, lived_ms: int) -> bool:
        """Sync an upload, and count its bytes before `end`. More of it may be written meanwhile.

        False: the blob is gone or complete, or the owner is no active member.
        """
        ...

    async def finish(self, blob: Blob, lived_ms: int) -> bool:
        """Complete an upload whose bytes are all there. False: their hash is another one, and the upload
        begins from its first byte."""
        ...

    async def read(self, blob: Blob, at: int, limit: int) -> Bytes:
        """Return at most `limit` bytes of a complete blob from an offset on; none when they are missing."""
        ...

    async def attach(self, blob: Blob, client_message_id: str, *, persistent: bool) -> bool:
        """Note the recipients of an announcing message of the blob's owner. False: none was accepted."""
        ...

    async def fetched(self, blob_id: str, member_id: str, lived_ms: int) -> None:
        """Note that a member has the whole blob."""
        ...

    async def delete(self, blob_id: str) -> bool:
        """Delete a blob with its bytes. False: there was none."""
        ...

    async def sweep(self, lived_ms: int) -> int:
        """Delete one batch of blobs that are over; returns how many.

        Unfinished uploads are over a day after their last progress, complete blobs a day after the last
        recipient that is still a member has fetched them, and 30 days after their completion. Persistent
        blobs stay.
        """
        ...

    async def stored(self) -> Mapping[str, StoredBlobs]:
        """Return the stored blobs of each mesh that has any."""
        ...

    async def check(self, after: str) -> BlobsChecked:
        """Look for complete blobs without all their bytes, in one batch behind the id `after`."""
        ...

    async def strays(self) -> frozenset[str]:
        """Return the ids of bytes without a row. Brokers that share a database have none."""
        ...

    async def remove_stray(self, blob_id: str) -> None:
        """Delete bytes without a row."""
        ...
