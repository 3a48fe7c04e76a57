"""files.db: the files that this host shares, each with the state that the next step begins at.

Crash story: a row is written after its encrypted copy is synced, so each row has its copy. Each step is
repeated after a crash, and each is harmless twice: an upload resumes at the broker's offset, the announcement
has a fixed client_message_id, and the broker takes the recipients of a blob again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from msgspec import Struct
from msgspec.structs import replace

from claudemesh.daemon.files.states import OPEN, ShareState, check_step
from claudemesh.protocol.attachments import Attachment
from claudemesh.runtime.clock import iso_ms
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.migrations import load_migrations
from claudemesh.runtime.queries import load_queries
from claudemesh.runtime.sqlite import Database, OnFailure

_Q = load_queries("claudemesh.daemon.sql", "files.sql")


class SharedFile(Struct, frozen=True, kw_only=True):
    """A shared file. `number` is its place in the order of acceptance, 0 before it is written."""

    file_id: str
    client_message_id: str
    request_fingerprint: bytes
    request: Mapping[str, Any]
    persistent: bool
    name: str
    media_type: str | None
    size: int
    sha256: str
    blob_size: int
    blob_sha256: str
    chunk_bytes: int
    key: bytes
    created_at: int
    # Whether it is the text of its message.
    is_text: bool = False
    state: ShareState = ShareState.UPLOADING
    blob_id: str | None = None
    error: str | None = None
    number: int = 0
    settled_lived: int | None = None

    def attachment(self) -> Attachment:
        """Return the attachment of the announcement. The blob must be known."""
        assert self.blob_id is not None
        return Attachment(
            file_id=self.file_id,
            name=self.name,
            size=self.size,
            sha256=self.sha256,
            blob_id=self.blob_id,
            blob_sha256=self.blob_sha256,
            key=self.key,
            chunk_bytes=self.chunk_bytes,
            media_type=self.media_type,
            is_text=self.is_text,
        )

    def item(self) -> dict[str, Any]:
        """Return the file as the API lists it, without its key."""
        return {
            "file_id": self.file_id,
            "name": self.name,
            "size": self.size,
            "sha256": self.sha256,
            "media_type": self.media_type,
            "direction": "out",
            "state": self.state.value,
            "to": self.request["to"],
            "client_message_id": self.client_message_id,
            "persistent": self.persistent,
            "error": self.error,
            "created_at": iso_ms(self.created_at),
        }


class Waiting(Struct, frozen=True):
    """The files that are not shared yet: their number by state, and the bytes of their encrypted copies."""

    counts: Mapping[str, int]
    size: int


class FilesStore:
    """The shared files on disk."""

    def __init__(self, database: Database) -> None:
        self._db = database
        # The ids of all announcements, so that a send is compared with them without a look at the disk.
        self.ids: set[str] = set()

    @classmethod
    async def open(cls, path: Path, on_failure: OnFailure | None = None) -> FilesStore:
        """Open or create files.db. Raise `StorageError`."""
        store = cls(await Database.open(path, load_migrations("claudemesh.daemon.sql.files"), on_failure))
        store.ids.update(await store._db.run(lambda raw: [row[0] for row in raw.execute(_Q["ids"])]))
        return store

    @property
    def database(self) -> Database:
        """The open file."""
        return self._db

    async def close(self) -> None:
        """Close the file."""
        await self._db.close()

    async def add(self, file: SharedFile) -> None:
        """Write a file whose encrypted copy is in the spool."""
        values = (
            file.file_id,
            file.client_message_id,
            file.request_fingerprint,
            orjson.dumps(file.request).decode(),
            file.persistent,
            file.name,
            file.media_type,
            file.size,
            file.sha256,
            file.blob_size,
            file.blob_sha256,
            file.chunk_bytes,
            file.key,
            file.created_at,
            file.is_text,
        )

        def work(raw: sqlite3.Connection) -> None:
            raw.execute(_Q["insert"], values)
            failpoint("share.before_commit")

        await self._db.transaction(work)
        failpoint("share.after_commit")

    async def by_id(self, file_id: str) -> SharedFile | None:
        """Return a file by its id."""
        return next(iter(await self._read("by_id", (file_id,))), None)

    async def by_send(self, client_message_id: str) -> SharedFile | None:
        """Return a file by the id of its announcement."""
        return next(iter(await self._read("by_send", (client_message_id,))), None)

    async def open_files(self) -> Sequence[SharedFile]:
        """Return the files that are not shared yet, oldest first."""
        return await self._read("open", ())

    async def waiting(self) -> Waiting:
        """Return the number of files that are not shared yet, and their bytes."""
        rows = await self._db.run(lambda raw: raw.execute(_Q["waiting"]).fetchall())
        counts = {state.value: 0 for state in OPEN} | {state: count for state, count, _ in rows}
        return Waiting(counts, sum(size for _, _, size in rows))

    async def spooled(self) -> list[str]:
        """Return the ids of the files whose encrypted copy is still needed."""
        return [file.file_id for file in await self.open_files()]

    async def page(self, before: int | None, limit: int, *, with_texts: bool = False) -> Sequence[SharedFile]:
        """Return up to `limit` files that were accepted before the one of this number, newest first."""
        values = (2**63 - 1 if before is None else before, limit)
        return await self._read("before_all" if with_texts else "before", values)

    async def move(
        self, file: SharedFile, state: ShareState, *, blob_id: str | None = None, error: str | None = None
    ) -> SharedFile | None:
        """Write the next state. Return the changed file, or None when another step was faster.

        Without `blob_id` the known one stays. The key is dropped with the last use of it.
        """
        check_step(file.state, state)
        keeps_key = state in (ShareState.UPLOADING, ShareState.ANNOUNCING, ShareState.ATTACHING)
        blob = blob_id or file.blob_id
        values = (state.value, blob, error, keeps_key, file.file_id, file.state.value)
        count = await self._db.transaction(lambda raw: raw.execute(_Q["move"], values).rowcount)
        failpoint("share.after_step")
        return replace(file, state=state, blob_id=blob, error=error) if count else None

    async def note(self, file: SharedFile, *, blob_id: str | None, error: str | None) -> SharedFile:
        """Write the blob of an upload, and the cause of a wait."""
        values = (blob_id, error, file.file_id, file.state.value)
        if (blob_id, error) != (file.blob_id, file.error):
            await self._db.transaction(lambda raw: raw.execute(_Q["note"], values))
        return replace(file, blob_id=blob_id, error=error)

    async def drop_requests(self, now_ms: int, kept_ms: int, limit: int) -> int:
        """Drop the requests of up to `limit` files that came to their end `kept_ms` of lived time ago.

        Id, fingerprint, name and destination stay. Return the number of rows that were changed.
        """

        def work(raw: sqlite3.Connection) -> int:
            settled: int = raw.execute(_Q["settle"], (now_ms, limit)).rowcount
            dropped: int = raw.execute(_Q["drop_requests"], (now_ms - kept_ms, limit)).rowcount
            return max(settled, dropped)

        return await self._db.transaction(work)

    async def _read(self, name: str, values: Sequence[object]) -> Sequence[SharedFile]:
        def work(raw: sqlite3.Connection) -> list[SharedFile]:
            cursor = raw.execute(_Q[name], tuple(values))
            names = [column[0] for column in cursor.description]
            return [_file(dict(zip(names, row, strict=True))) for row in cursor]

        return await self._db.run(work)


def _file(row: dict[str, Any]) -> SharedFile:
    row["request"] = orjson.loads(row["request"])
    row["persistent"], row["is_text"] = bool(row["persistent"]), bool(row["is_text"])
    row["state"] = ShareState(row["state"])
    return SharedFile(**row)
