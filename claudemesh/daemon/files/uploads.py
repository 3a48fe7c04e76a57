"""Uploads: brings each shared file to the broker, then its message (docs/spec/daemon.md, Shared files).

The message leaves when the broker has the whole blob on disk and its SHA-256 matches. Files wait here, not in
the outbox, so that they hold up no send. Each round does the next step of every file, and one upload.
"""

from __future__ import annotations

import asyncio
import http.client
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import Enum, auto
from typing import Any

from msgspec import Struct

from claudemesh.daemon.calls import Ask
from claudemesh.daemon.files.blob_server import BlobConnection, BlobServer, Part, PartAnswer
from claudemesh.daemon.files.sharing import announcement
from claudemesh.daemon.files.spool import Spool
from claudemesh.daemon.files.states import ShareState
from claudemesh.daemon.files.store import FilesStore, SharedFile
from claudemesh.daemon.files.threads import Threads
from claudemesh.daemon.outbox.callers import WaitingCallers
from claudemesh.daemon.outbox.request import SendRequest
from claudemesh.daemon.outbox.states import Answer, Status
from claudemesh.daemon.outbox.store import OutboxStore
from claudemesh.protocol.blob_replies import BlobBegun, blob_begun, blob_noted
from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.errors import StorageBroken, StorageError
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.uncached import read_at

log = get_logger("files")

# A part is one request, for which one ticket is enough. A piece of it is in memory.
PART_BYTES = 32 << 20
_PIECE_BYTES = 1 << 20
_IDLE_S = 60.0
_STALLED = 3
# Refusals of a blob that no later attempt changes.
_PERMANENT = frozenset({"blob_too_large"})
_NEW_TICKET = frozenset({"ticket_expired", "ticket_invalid"})
_RETRIED = frozenset({429, 500, 503, 507})
_GIVEN_UP = frozenset({"outbox_dead_fingerprint_match", "outbox_aborted_fingerprint_match"})


class UploadParts(Struct, frozen=True, kw_only=True):
    """The parts that uploads use.

    `server` returns the broker's blobs at the present address. `may_come_back` tells whether a refusal of a
    message may be temporary, because the broker's database was restored. `count` gets each share that ended,
    and the size of its file.
    """

    store: FilesStore
    spool: Spool
    outbox: OutboxStore
    callers: WaitingCallers
    submit: Callable[[SendRequest], Awaitable[Answer]]
    may_come_back: Callable[[str], bool]
    ask: Ask
    is_connected: Callable[[], bool]
    server: Callable[[], BlobServer]
    threads: Threads
    backoff: Backoff
    count: Callable[[str, int], None] = lambda status, size: None
    part_bytes: int = PART_BYTES


class _Sent(Enum):
    """The end of a turn of an upload. After `PAUSED` another file has its turn."""

    WHOLE = auto()
    PAUSED = auto()
    STOPPED = auto()


class Uploads:
    """Advances the files that are not shared yet. `sent` has the bytes that the broker has of each."""

    def __init__(self, parts: UploadParts) -> None:
        self._parts = parts
        self._wake = asyncio.Event()
        self._failures = 0
        self._watched: dict[str, asyncio.Future[None]] = {}
        self._stop = threading.Event()
        # Set by a round that found no file on its way.
        self._empty = asyncio.Event()
        # The file whose upload had the last turn.
        self._turn: str | None = None
        self._cancelled: set[str] = set()
        self.sent: dict[str, int] = {}

    def wake(self) -> None:
        """Start a round: a file was added, the link is open, or a message was settled."""
        self._wake.set()

    def cancel(self, file_id: str) -> None:
        """End the upload of a file behind the present part."""
        self._cancelled.add(file_id)

    def go_on(self, file_id: str) -> None:
        """Go on with a file that was not deleted after all."""
        self._cancelled.discard(file_id)
        self.wake()

    async def finish(self, timeout_s: float) -> None:
        """Wait up to `timeout_s` until every file is shared or given up, unless the link is down."""
        if not self._parts.is_connected():
            return
        self._empty.clear()
        self.wake()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()

    def stop(self) -> None:
        """End the present upload behind its part."""
        self._stop.set()

    async def run(self) -> None:
        """Do rounds until cancelled, or until the storage is broken."""
        await self._tidy()
        while True:
            self._wake.clear()
            try:
                is_ahead = await self.round()
            except StorageBroken:
                return
            except StorageError as error:
                log.warning("files_not_written", error=str(error))
                is_ahead = False
                self._failures += 1
            except Exception as error:
                log.error("upload_failed", error=repr(error), exc_info=error)
                is_ahead = False
                self._failures += 1
            if is_ahead:
                continue
            wait_s = self._parts.backoff.delay_s(self._failures) if self._failures else _IDLE_S
            try:
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def round(self) -> bool:
        """Do the next step of every file; return whether another round has something to do at once."""
        files = await self._parts.store.open_files()
        self._failures = 0 if not files else self._failures
        self._cancelled.intersection_update(file.file_id for file in files)
        if not files:
            self._empty.set()
        is_ahead = False
        for file in files:
            if file.state is ShareState.ANNOUNCING:
                is_ahead |= await self._alone(self._announce, file)
            elif file.state is ShareState.ATTACHING:
                is_ahead |= await self._alone(self._attach, file)
        for file in self._in_turn([file for file in files if file.state is ShareState.UPLOADING]):
            self._turn = file.file_id
            if await self._alone(self._upload, file):
                return True
        return is_ahead

    def _in_turn(self, files: Sequence[SharedFile]) -> Sequence[SharedFile]:
        """Return the files so that each has its turn: those behind the last one first."""
        ids = [file.file_id for file in files]
        first = ids.index(self._turn) + 1 if self._turn in ids else 0
        return [*files[first:], *files[:first]]

    async def _alone(self, step: Callable[[SharedFile], Awaitable[bool]], file: SharedFile) -> bool:
        """Do a step of one file. A fault of it holds up no other file."""
        try:
            return await step(file)
        except StorageError:
            raise
        except ProtocolError as error:
            return await self._later(file, f"{error.code}: {error.message}")
        except Exception as error:
            log.error("share_failed", file_id=file.file_id, error=repr(error), exc_info=error)
            return await self._later(file, f"internal_error: {error!r}. The log has the place.")

    async def _tidy(self) -> None:
        """Delete encrypted copies that a crash has left without a row."""
        spooled = await self._parts.store.spooled()
        count = await self._parts.threads.run(self._parts.spool.tidy, spooled)
        if count:
            log.info("spool_tidied", count=count)

    async def _upload(self, file: SharedFile) -> bool:
        """Send the rest of a blob; return whether the state or the ticket has changed."""
        parts = self._parts
        if not parts.is_connected() or file.file_id in self._cancelled:
            return False
        params: dict[str, Any] = {"size": file.blob_size, "sha256": file.blob_sha256}
        if file.blob_id is not None:
            params["blob_id"] = file.blob_id
        try:
            begun = await parts.ask("blob_begin", params, blob_begun)
            file = await parts.store.note(file, blob_id=begun.blob_id, error=None)
            sent = _Sent.WHOLE
            if not begun.is_complete:
                sent = await parts.threads.transfer(self._send, file, begun, parts.server())
        except ProtocolError as error:
            return await self._refused(file, error)
        except FileNotFoundError:
            return await self._give_up(file, "The encrypted copy in the spool is gone. Send the file again.")
        except (OSError, http.client.HTTPException) as error:
            return await self._later(file, f"The upload was interrupted, and goes on by itself: {error!r}.")
        finally:
            self.sent.pop(file.file_id, None)
            await self._drop_deleted(file)
        if sent is not _Sent.WHOLE:
            return sent is _Sent.PAUSED
        self._failures = 0
        failpoint("share.after_upload")
        return await parts.store.move(file, ShareState.ANNOUNCING) is not None

    async def _drop_deleted(self, file: SharedFile) -> None:
        """Delete the blob of a file that was deleted here before its upload had an id."""
        if file.file_id not in self._cancelled or file.blob_id is None:
            return
        row = await self._parts.store.by_id(file.file_id)
        if row is not None and row.state is ShareState.DELETED:
            with suppress(ProtocolError):
                await self._parts.ask("blob_delete", {"blob_id": file.blob_id}, blob_noted)

    def _send(self, file: SharedFile, begun: BlobBegun, server: BlobServer) -> _Sent:
        """Send parts from the broker's offset on, until it has verified the whole blob.

        A round that is due, such as for a new file, pauses it behind a part, so that a large file does not
        hold up a small one.
        """
        with self._parts.spool.path(file.file_id).open("rb") as copy, server.connect() as connection:
            # A whole blob whose verification was not answered: its last part is sent again.
            at = min(begun.offset, max(0, file.blob_size - 1))
            stalled = 0
            while stalled < _STALLED and not self._stop.is_set() and file.file_id not in self._cancelled:
                answer = self._send_part(copy.fileno(), file, begun, connection, at)
                failpoint("share.after_part")
                if answer.is_complete:
                    return _Sent.WHOLE
                stalled = stalled + 1 if answer.offset <= at else 0
                at = self.sent[file.file_id] = min(answer.offset, file.blob_size - 1)
                if self._wake.is_set() and not stalled:
                    return _Sent.PAUSED
        if stalled >= _STALLED:
            raise ProtocolError("broker_unavailable", "The broker takes no further part of the file.")
        return _Sent.STOPPED

    def _send_part(
        self, copy: int, file: SharedFile, begun: BlobBegun, connection: BlobConnection, at: int
    ) -> PartAnswer:
        part = Part(at, min(self._parts.part_bytes, file.blob_size - at), file.blob_size)
        return connection.put(begun.blob_id, begun.ticket, part, self._pieces(copy, file, part))

    def _pieces(self, copy: int, file: SharedFile, part: Part) -> Iterator[memoryview]:
        """Yield the bytes of a part, each piece until the next one is asked for, and count what is sent."""
        at, end = part.start, part.start + part.length
        piece = memoryview(bytearray(min(_PIECE_BYTES, part.length)))
        while at < end:
            if self._stop.is_set() or file.file_id in self._cancelled:
                raise ConnectionError("the upload was ended")
            size = read_at(copy, at, piece[: end - at])
            if not size:
                raise FileNotFoundError
            yield piece[:size]
            at = self.sent[file.file_id] = at + size

    async def _refused(self, file: SharedFile, error: ProtocolError) -> bool:
        if error.code in _PERMANENT:
            return await self._give_up(file, f"{error.code}: {error.message}")
        if error.code == "blob_hash_mismatch":
            return await self._changed_on_the_way(file)
        if error.code in _NEW_TICKET:
            return await self._later(file, error.message)
        if error.code == "blob_not_found" and file.blob_id is not None:
            # The broker has deleted the part, or its database was restored: the blob begins again.
            await self._parts.store.note(file, blob_id=None, error=None)
            return True
        return await self._later(file, f"{error.code}: {error.message}")

    async def _changed_on_the_way(self, file: SharedFile) -> bool:
        """Find out which side has changed the bytes of a blob. An unchanged copy is sent again."""
        if await self._parts.threads.run(self._parts.spool.holds, file.file_id, file.blob_sha256):
            text = (
                "The broker has received other bytes than this host has sent, so the upload begins again. If "
                "this goes on, check the broker's disk and the proxies before it."
            )
            return await self._later(file, text)
        text = "The encrypted copy in the spool was damaged on this host's disk. Send the file again."
        return await self._give_up(file, text)

    async def _announce(self, file: SharedFile) -> bool:
        """Give the message to the outbox; return whether it has taken it."""
        answer = await self._parts.submit(announcement(file))
        failpoint("share.after_announcement")
        if answer.status in (200, 202) or answer.body.get("conflict") in _GIVEN_UP:
            return await self._parts.store.move(file, ShareState.ATTACHING) is not None
        error = str(answer.body.get("error"))
        text = f"{error}: {answer.body.get('message')}"
        if answer.status in _RETRIED or self._parts.may_come_back(error):
            return await self._later(file, text)
        return await self._give_up(file, f"The message was not accepted. {text}")

    async def _attach(self, file: SharedFile) -> bool:
        """Tell the broker the recipients of a blob, once it has the message."""
        row = await self._row_of(file)
        if row is None:
            return False
        status = Status(row["status"])
        if status is not Status.DONE:
            return await self._not_sent(file, status, row)
        if not self._parts.is_connected():
            return False
        params = {
            "blob_id": file.blob_id,
            "client_message_id": row["client_message_id"],
            "persistent": file.persistent,
        }
        try:
            await self._parts.ask("blob_attach", params, blob_noted)
        except ProtocolError as error:
            if error.code == "blob_not_found":
                text = "The broker has lost the blob, though the message has left. Send the file again."
                return await self._give_up(file, text)
            return await self._later(file, f"{error.code}: {error.message}")
        self._failures = 0
        changed = await self._parts.store.move(file, ShareState.SHARED)
        await self._parts.threads.run(self._parts.spool.remove, file.file_id)
        self._parts.count("shared", file.size)
        log.info("file_shared", file_id=file.file_id, size=file.size)
        return changed is not None

    async def _row_of(self, file: SharedFile) -> Mapping[str, Any] | None:
        """Return the outbox row of a message, or of the message that an operator sent in its place.

        A row that is unknown was lost with the outbox: the message is submitted again.
        """
        self._watch(file.client_message_id)
        found = await self._parts.outbox.get(file.client_message_id)
        if found is None:
            await self._parts.submit(announcement(file))
            return None
        row: Mapping[str, Any] = found["chain"][-1] if found["chain"] else found
        return row

    async def _not_sent(self, file: SharedFile, status: Status, row: Mapping[str, Any]) -> bool:
        if status is Status.ABORTED:
            return await self._give_up(file, "The message was dropped by an operator.")
        if status is Status.DEAD:
            text = f"The message was given up ({row['last_error']}). Requeue it, or delete the file."
            await self._parts.store.note(file, blob_id=file.blob_id, error=text)
        return False

    def _watch(self, client_message_id: str) -> None:
        """Wake when the outbox has settled a message."""
        watched = self._watched.get(client_message_id)
        if watched is None or watched.done():
            settled = self._parts.callers.add(client_message_id)
            settled.add_done_callback(lambda _: self.wake())
            self._watched = {
                **{known: future for known, future in self._watched.items() if not future.done()},
                client_message_id: settled,
            }

    async def _later(self, file: SharedFile, text: str) -> bool:
        self._failures += 1
        await self._parts.store.note(file, blob_id=file.blob_id, error=text)
        return False

    async def _give_up(self, file: SharedFile, text: str) -> bool:
        self._parts.count("failed", file.size)
        log.warning("file_not_shared", file_id=file.file_id, reason=text)
        changed = await self._parts.store.move(file, ShareState.FAILED, error=text)
        await self._parts.threads.run(self._parts.spool.remove, file.file_id)
        return changed is not None
