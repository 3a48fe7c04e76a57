"""Files that received messages announce, in inbox.db (docs/spec/daemon.md, Shared files).

The rows of files are written in the transaction of their message, and deleted with it. Keys stay in this
database: the API, the events and the hooks get name, size and hash only.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from msgspec import Struct

from claudemesh.protocol.attachments import Attachment, parse_attachments
from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime.clock import iso_ms
from claudemesh.runtime.queries import load_queries
from claudemesh.runtime.sqlite import Database

_Q = load_queries("claudemesh.daemon.sql", "inbox.sql")


class ReceivedFile(Struct, frozen=True):
    """A file that a message has announced. `number` is its place in the order of arrival.

    `error` is the code of the last download, if it has failed.
    """

    number: int
    file: Attachment
    inbox_id: str
    sender_name: str
    sender_pubkey: str
    kind: str
    topic: str | None
    received_at: int
    fetched_at: int | None
    error: str | None = None

    def item(self) -> dict[str, Any]:
        """Return the file as the API lists it, without its key."""
        return {
            **public(self.file),
            "direction": "in",
            "state": "fetched" if self.fetched_at is not None else "announced",
            "message_id": self.inbox_id,
            "sender_name": self.sender_name,
            "sender_pubkey": self.sender_pubkey,
            "kind": self.kind,
            "topic": self.topic,
            "received_at": iso_ms(self.received_at),
            "fetched_at": None if self.fetched_at is None else iso_ms(self.fetched_at),
            "error": self.error,
        }


def public(file: Attachment) -> dict[str, Any]:
    """Return what the API shows of an attachment. Its key and its blob stay in the database."""
    return {
        "file_id": file.file_id,
        "name": file.name,
        "size": file.size,
        "sha256": file.sha256,
        "media_type": file.media_type,
    }


def encode_attachments(files: Sequence[Attachment]) -> str | None:
    """Return the text of the column, None without files."""
    return orjson.dumps([one.to_dict() for one in files]).decode() if files else None


def shown_attachments(text: str | None) -> dict[str, Any]:
    """Return the fields of a message that follow from the column.

    A text that was too long to come with its message is no file of its own.
    """
    files = () if text is None else parse_attachments(orjson.loads(text))
    whole = next((one for one in files if one.is_text), None)
    return {
        "attachments": [public(one) for one in files if not one.is_text],
        "body_truncated": whole is not None,
        "body_bytes": None if whole is None else whole.size,
    }


def announces_files(text: str | None) -> bool:
    """Whether the column has a file that is not the text of the message."""
    return text is not None and bool(shown_attachments(text)["attachments"])


def add_files(raw: sqlite3.Connection, inbox_id: str, text: str | None) -> None:
    """Write the rows of a message's files, in the transaction that writes the message."""
    if text is not None:
        files = parse_attachments(orjson.loads(text))
        raw.executemany(_Q["add_file"], [(one.file_id, inbox_id, one.is_text) for one in files])


class ReceivedFiles:
    """The announced files in inbox.db."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def find(self, file_id: str, inbox_id: str | None = None) -> ReceivedFile | None:
        """Return a file by its id, and by the message that announces it.

        A sender chooses the ids of its files, so another one may announce the same. `ProtocolError`
        file_id_ambiguous then, without the message.
        """
        found = await self._read("files_by_id", (file_id, inbox_id))
        if len(found) > 1:
            messages = ", ".join(f"{one.inbox_id} of {one.sender_name}" for one in found)
            raise ProtocolError(
                "file_id_ambiguous",
                f"Several members announce a file {file_id}, so the id alone does not name one. Give the "
                f"message too (--message): {messages}.",
                message_ids=[one.inbox_id for one in found],
            )
        return next(iter(found), None)

    async def is_announced(self, file_id: str) -> bool:
        """Whether a message announces a file with this id."""
        return bool(await self._read("files_by_id", (file_id, None)))

    async def text_of(self, inbox_id: str) -> ReceivedFile | None:
        """Return the file that holds the whole text of a message."""
        return next(iter(await self._read("file_of_text", (inbox_id,))), None)

    async def texts(self) -> set[str]:
        """Return the ids of the messages whose whole text is a file."""
        rows = await self._db.run(lambda raw: raw.execute(_Q["texts_known"]).fetchall())
        return {row[0] for row in rows}

    async def page(self, before: int | None, limit: int) -> Sequence[ReceivedFile]:
        """Return up to `limit` files that arrived before the one of this number, newest first."""
        return await self._read("files_before", (2**63 - 1 if before is None else before, limit))

    async def fetched(self, number: int, now_ms: int) -> None:
        """Set the time of the first download."""
        await self._db.transaction(lambda raw: raw.execute(_Q["file_fetched"], (now_ms, number)))

    async def failed(self, number: int, code: str) -> None:
        """Set the code of a failed download."""
        await self._db.transaction(lambda raw: raw.execute(_Q["file_failed"], (code, number)))

    async def untold(self, after: int, limit: int) -> Sequence[ReceivedFile]:
        """Return up to `limit` fetched files behind a number that the broker may not know as fetched."""
        return await self._read("files_untold", (after, limit))

    async def told(self, number: int) -> None:
        """Note that the broker knows a file as fetched."""
        await self._db.transaction(lambda raw: raw.execute(_Q["file_told"], (number,)))

    async def _read(self, name: str, values: Iterable[object]) -> Sequence[ReceivedFile]:
        rows = await self._db.run(lambda raw: raw.execute(_Q[name], tuple(values)).fetchall())
        return [_received(row) for row in rows]


def _received(row: Sequence[Any]) -> ReceivedFile:
    number, file_id, inbox_id, fetched_at, error, attachments, *rest = row
    file = next(one for one in parse_attachments(orjson.loads(attachments)) if one.file_id == file_id)
    sender_name, sender_pubkey, kind, topic, received_at = rest
    return ReceivedFile(
        number, file, inbox_id, sender_name, sender_pubkey, kind, topic, received_at, fetched_at, error
    )
