"""Download of a blob into a temporary file: each chunk is verified before it is written.

A later attempt continues behind the chunks that are on the disk (`StreamOpener.skip`). The functions block.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from claudemesh.daemon.files.blob_server import BlobServer
from claudemesh.daemon.files.source import read_fully
from claudemesh.protocol.attachments import Attachment
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.filestream import HEADER_BYTES, OVERHEAD_BYTES, StreamOpener, chunks_in, sealed_size
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.hashing import HashThread


@dataclass(frozen=True, slots=True)
class Ticket:
    """The right to fetch a blob, and the size that the broker states."""

    blob_id: str
    ticket: str
    size: int


def check_size(file: Attachment, ticket: Ticket, sha256: str) -> None:
    """Raise `ProtocolError` for a blob of another size than the file has."""
    if ticket.size == sealed_size(file.size, file.chunk_bytes):
        return
    raise wrong_by_sender(file) if sha256 == file.blob_sha256 else wrong_by_broker(file)


class Download:
    """One attempt to fetch the rest of a blob."""

    def __init__(
        self, file: Attachment, descriptor: int, server: BlobServer, is_stopped: Callable[[], bool]
    ) -> None:
        self._file = file
        self._descriptor = descriptor
        self._server = server
        self._is_stopped = is_stopped
        self._thread = HashThread()
        self._plain = self._thread.sha256()
        self._sealed = self._thread.sha256()
        self.received = 0

    def run(self, ticket: Ticket) -> bool:
        """Fetch and verify. False: it was stopped.

        Raise `ProtocolError` with the side that is at fault, `OSError` or `HTTPException` when the connection
        has ended: what is verified stays in the temporary file. An attempt runs once.
        """
        with self._thread:
            return self._run(ticket)

    def _run(self, ticket: Ticket) -> bool:
        header = self._header(ticket)
        opener = StreamOpener(self._file.key, header)
        self._sealed.update(header)
        done = self._resume(opener)
        try:
            is_whole = self._pull(opener, ticket, done)
        except _Unopened:
            if done:
                # The chunks on the disk may be the wrong ones.
                os.ftruncate(self._descriptor, 0)
                raise ConnectionError(
                    "the temporary file was changed, so the download begins again"
                ) from None
            raise self._judge() from None
        if is_whole:
            self._check()
        return is_whole

    def _header(self, ticket: Ticket) -> bytes:
        with self._server.connect() as connection:
            pieces = connection.get(ticket.blob_id, ticket.ticket, 0, HEADER_BYTES, HEADER_BYTES)
            return b"".join(pieces)

    def _resume(self, opener: StreamOpener) -> int:
        """Take up the chunks on the disk, without the last one of the file; return their number."""
        chunk = self._file.chunk_bytes
        whole = os.fstat(self._descriptor).st_size // chunk
        done = min(whole, chunks_in(self._file.size, chunk) - 1)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        for _ in range(done):
            plain = read_fully(self._descriptor, chunk)
            self._plain.update(plain)
            self._sealed.update(opener.skip(plain))
        os.ftruncate(self._descriptor, done * chunk)
        os.lseek(self._descriptor, done * chunk, os.SEEK_SET)
        self.received = done * chunk
        return done

    def _pull(self, opener: StreamOpener, ticket: Ticket, done: int) -> bool:
        chunk = self._file.chunk_bytes
        start = HEADER_BYTES + done * (chunk + OVERHEAD_BYTES)
        with self._server.connect() as connection:
            rest, sealed_bytes = ticket.size - start, chunk + OVERHEAD_BYTES
            parts = connection.get(ticket.blob_id, ticket.ticket, start, rest, sealed_bytes)
            last = chunks_in(self._file.size, chunk) - 1
            for number in range(done, last + 1):
                if self._is_stopped():
                    return False
                sealed = next(parts, b"")
                if number < last and len(sealed) < sealed_bytes:
                    raise ConnectionError("the connection has ended")
                self._open(opener, sealed, parts, number)
        return True

    def _open(self, opener: StreamOpener, sealed: bytes, rest: Iterator[bytes], number: int) -> None:
        is_last = number == chunks_in(self._file.size, self._file.chunk_bytes) - 1
        if is_last and len(sealed) < self._last_bytes():
            raise ConnectionError("the connection has ended")
        self._sealed.update(sealed)
        try:
            plain = opener.open(sealed, is_last=is_last)
        except ProtocolError as error:
            # The connection is still open here. The hash of the whole blob tells whose fault it is.
            at = HEADER_BYTES + number * (self._file.chunk_bytes + OVERHEAD_BYTES) + len(sealed)
            for part in rest:
                if self._is_stopped():
                    break
                self._sealed.update(part)
                at += len(part)
            if at < sealed_size(self._file.size, self._file.chunk_bytes):
                raise ConnectionError("the connection has ended") from error
            raise _Unopened from error
        self._plain.update(plain)
        view = memoryview(plain)
        while view:
            view = view[os.write(self._descriptor, view) :]
        self.received += len(plain)
        failpoint("fetch.after_chunk")

    def _last_bytes(self) -> int:
        file = self._file
        return file.size - (chunks_in(file.size, file.chunk_bytes) - 1) * file.chunk_bytes + OVERHEAD_BYTES

    def _judge(self) -> ProtocolError:
        """Return the error for a chunk that does not open, by the hash of the whole blob."""
        is_as_sent = self._sealed.hexdigest() == self._file.blob_sha256
        return wrong_by_sender(self._file) if is_as_sent else wrong_by_broker(self._file)

    def _check(self) -> None:
        """Compare the whole with the announcement. Every chunk opened, so a difference is the sender's."""
        found = (self.received, self._plain.hexdigest(), self._sealed.hexdigest())
        if found != (self._file.size, self._file.sha256, self._file.blob_sha256):
            raise wrong_by_sender(self._file)


class _Unopened(Exception):
    """A chunk does not open."""


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
