"""Download of a blob into a temporary file: each chunk is verified before it is written.

A later attempt continues behind the chunks that are on the disk (`StreamOpener.skip`). A chunk authenticates
itself, so the blob is not hashed. Only behind one that does not open the next attempt hashes the blob from
its first byte, to tell whose fault it is. The functions block.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from functools import partial

from msgspec import Struct

from claudemesh.daemon.files.blob_server import BlobServer, BlobStream
from claudemesh.daemon.files.source import read_fully
from claudemesh.daemon.files.writing import SyncedWriting
from claudemesh.protocol.attachments import Attachment
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.filestream import HEADER_BYTES, OVERHEAD_BYTES, StreamOpener, chunks_in, sealed_size
from claudemesh.runtime.beside import Beside
from claudemesh.runtime.failpoints import failpoint


class Ticket(Struct, frozen=True):
    """The right to fetch a blob, and the size that the broker states."""

    blob_id: str
    ticket: str
    size: int


def check_size(file: Attachment, ticket: Ticket, sha256: str) -> None:
    """Raise `ProtocolError` for a blob of another size than the file has."""
    if ticket.size == sealed_size(file.size, file.chunk_bytes):
        return
    raise wrong_by_sender(file) if sha256 == file.blob_sha256 else wrong_by_broker(file)


# A sender chooses the size of its chunks. Small ones are hashed and written together.
_TOGETHER = 256 << 10


class Unopened(ConnectionError):
    """A chunk does not open, and it is not known whose fault that is. The download begins again."""


class Download:
    """One attempt to fetch the rest of a blob.

    This thread reads and opens. Others hash, write and sync what is opened. `is_judging`: the blob is hashed
    too, so that a chunk that does not open has a culprit.
    """

    def __init__(
        self,
        file: Attachment,
        descriptor: int,
        server: BlobServer,
        is_stopped: Callable[[], bool],
        *,
        is_judging: bool = False,
    ) -> None:
        self._file = file
        self._descriptor = descriptor
        self._server = server
        self._is_stopped = is_stopped
        self._is_judging = is_judging
        self._hashing = Beside()
        self._writing = SyncedWriting(descriptor)
        self._plain = hashlib.sha256()
        self._sealed = hashlib.sha256()
        # The chunks that an earlier attempt has left.
        self._began_at = 0
        self.received = 0

    def run(self, ticket: Ticket) -> bool:
        """Fetch and verify. False: it was stopped.

        Raise `ProtocolError` with the side that is at fault, `OSError` or `HTTPException` when the connection
        has ended: what is verified stays in the temporary file. Raise `Unopened` for a chunk that does not
        open, with an empty temporary file. An attempt runs once.
        """
        # A sync that failed empties the temporary file, behind all else.
        with self._writing, self._hashing:
            return self._run(ticket)

    def _run(self, ticket: Ticket) -> bool:
        try:
            is_whole = self._pull(ticket)
            self._hashing.wait()
            self._writing.wait()
        except _CannotOpen:
            if self._is_judging and not self._began_at:
                raise self._judge() from None
            # The chunks on the disk may be the wrong ones.
            self._writing.wait()
            os.ftruncate(self._descriptor, 0)
            raise Unopened("a chunk does not open, so the download begins again") from None
        if is_whole:
            self._check()
        return is_whole

    def _pull(self, ticket: Ticket) -> bool:
        self._began_at = done = self._done()
        if done:
            with self._server.connect() as connection:
                header = connection.get(ticket.blob_id, ticket.ticket, 0, HEADER_BYTES).read(HEADER_BYTES)
            opener = self._opener(header)
            self._resume(opener, done)
            start = HEADER_BYTES + done * self._sealed_bytes
            with self._server.connect() as connection:
                stream = connection.get(ticket.blob_id, ticket.ticket, start, ticket.size - start)
                return self._open_all(opener, stream, done)
        with self._server.connect() as connection:
            stream = connection.get(ticket.blob_id, ticket.ticket, 0, ticket.size)
            opener = self._opener(stream.read(HEADER_BYTES))
            return self._open_all(opener, stream, 0)

    def _opener(self, header: bytes) -> StreamOpener:
        if len(header) < HEADER_BYTES:
            raise _ended()
        self._sealed.update(header)
        return StreamOpener(self._file.key, header)

    def _done(self) -> int:
        """Return the number of chunks on the disk, without the last one of the file, and drop the rest."""
        chunk = self._file.chunk_bytes
        done = min(os.fstat(self._descriptor).st_size // chunk, self._last)
        os.ftruncate(self._descriptor, done * chunk)
        return done

    def _resume(self, opener: StreamOpener, done: int) -> None:
        """Take up the chunks on the disk."""
        chunk = self._file.chunk_bytes
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        for _ in range(done):
            plain = read_fully(self._descriptor, chunk)
            if self._is_stopped():
                raise _ended()
            self._hashing.do(partial(self._plain.update, plain))
            sealed = opener.skip(plain)
            if self._is_judging:
                self._sealed.update(sealed)
        self.received = done * chunk

    def _open_all(self, opener: StreamOpener, stream: BlobStream, done: int) -> bool:
        os.lseek(self._descriptor, done * self._file.chunk_bytes, os.SEEK_SET)
        held: list[bytes] = []
        size, number = 0, done
        try:
            for plain in self._opened(opener, stream, done):
                held.append(plain)
                size += len(plain)
                number += 1
                if size >= _TOGETHER:
                    self._take(b"".join(held))
                    held, size = [], 0
        finally:
            # Also when the connection has ended: what is verified stays.
            if held:
                self._take(b"".join(held))
        return number > self._last

    def _opened(self, opener: StreamOpener, stream: BlobStream, done: int) -> Iterator[bytes]:
        """Yield the chunks behind those that are done, verified, until a stop."""
        for number in range(done, self._last + 1):
            if self._is_stopped():
                return
            wanted = self._sealed_bytes if number < self._last else self._last_bytes
            sealed = stream.read(wanted)
            if len(sealed) < wanted:
                raise _ended()
            if self._is_judging:
                self._sealed.update(sealed)
            try:
                plain = opener.open(sealed, is_last=number == self._last)
            except ProtocolError as error:
                self._hash_rest(stream)
                raise _CannotOpen from error
            yield plain

    def _take(self, plain: bytes) -> None:
        self._hashing.do(partial(self._plain.update, plain))
        self._writing.add(plain, partial(self._count, len(plain)))

    def _hash_rest(self, stream: BlobStream) -> None:
        """Hash the blob behind a chunk that does not open: the whole hash tells whose fault it is."""
        if not self._is_judging:
            return
        while part := stream.read(self._sealed_bytes):
            if self._is_stopped():
                raise _ended()
            self._sealed.update(part)
        if not stream.is_whole:
            raise _ended()

    def _count(self, size: int) -> None:
        self.received += size
        failpoint("fetch.after_chunk")

    @property
    def _last(self) -> int:
        return chunks_in(self._file.size, self._file.chunk_bytes) - 1

    @property
    def _sealed_bytes(self) -> int:
        return self._file.chunk_bytes + OVERHEAD_BYTES

    @property
    def _last_bytes(self) -> int:
        return self._file.size - self._last * self._file.chunk_bytes + OVERHEAD_BYTES

    def _judge(self) -> ProtocolError:
        """Return the error for a chunk that does not open, by the hash of the whole blob."""
        is_as_sent = self._sealed.hexdigest() == self._file.blob_sha256
        return wrong_by_sender(self._file) if is_as_sent else wrong_by_broker(self._file)

    def _check(self) -> None:
        """Compare the whole with the announcement. Every chunk opened, so a difference is the sender's."""
        is_blob = not self._is_judging or self._sealed.hexdigest() == self._file.blob_sha256
        if not is_blob or (self.received, self._plain.hexdigest()) != (self._file.size, self._file.sha256):
            raise wrong_by_sender(self._file)


class _CannotOpen(Exception):
    """A chunk does not open."""


def _ended() -> ConnectionError:
    return ConnectionError("the connection has ended")


def wrong_by_broker(file: Attachment) -> ProtocolError:
    """Return the error for a blob that is not the one that its sender has announced."""
    return ProtocolError(
        "blob_changed",
        f"The broker delivers other bytes than the sender of {file.file_id} has uploaded. Nothing was "
        "deleted. Tell the broker's operator, or ask the sender for the file again.",
        at_fault="broker",
    )


def wrong_by_sender(file: Attachment) -> ProtocolError:
    """Return the error for a blob that its sender has made so."""
    return ProtocolError(
        "file_wrong",
        f"The sender of {file.file_id} has announced another size or SHA-256 than its file has. The broker "
        "delivers it as it was uploaded. Nothing was deleted. Ask the sender for the file again.",
        at_fault="sender",
    )
