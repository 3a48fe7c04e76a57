"""Spool: encrypted copies of files that are on their way (docs/spec/daemon.md, Shared files).

The source is read once. Its encrypted copy is on the disk before the share is accepted, so the source may
change or vanish afterwards. A file in the spool without a row is left from a crash, and is deleted at start.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

from msgspec import Struct

from claudemesh.daemon.files.source import Source, TextSource
from claudemesh.daemon.files.writing import SyncedWriting
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.filestream import CHUNK_BYTES, StreamSealer, sealed_size
from claudemesh.runtime.beside import Beside
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.files import make_private_dir, sync_dir
from claudemesh.runtime.oserrors import explain

_FULL = (errno.ENOSPC, errno.EDQUOT)


class Spooled(Struct, frozen=True):
    """An encrypted copy on the disk: size and SHA-256 of the file and of the copy."""

    size: int
    sha256: str
    blob_size: int
    blob_sha256: str


class SpoolLimits(Struct, frozen=True):
    """Upper bounds in bytes: of one file, and of all encrypted copies in the spool.

    `take_room` counts a copy of so many bytes, or raises `ProtocolError` when the disk has no room for it.
    """

    blob_bytes: int
    spool_bytes: int
    take_room: Callable[[int], None] = lambda size: None


class Spool:
    """The directory of encrypted copies. Its methods block; they run on a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, file_id: str) -> Path:
        """Return the path of a copy."""
        return self._folder / file_id

    def used(self) -> int:
        """Return the bytes of all copies."""
        if not self._folder.exists():
            return 0
        total = 0
        for entry in self._folder.iterdir():
            with suppress(FileNotFoundError):
                total += entry.lstat().st_size
        return total

    def tidy(self, wanted: Iterable[str]) -> int:
        """Delete copies without a row, and return their number."""
        if not self._folder.exists():
            return 0
        kept = set(wanted)
        orphans = [entry for entry in self._folder.iterdir() if entry.name not in kept]
        for orphan in orphans:
            orphan.unlink(missing_ok=True)
        return len(orphans)

    def holds(self, file_id: str, sha256: str) -> bool:
        """Whether a copy has this hash. A missing one has none. Raise `OSError`."""
        try:
            with self.path(file_id).open("rb") as copy:
                return hashlib.file_digest(copy, "sha256").hexdigest() == sha256
        except FileNotFoundError:
            return False

    def remove(self, file_id: str) -> None:
        """Delete a copy."""
        self.path(file_id).unlink(missing_ok=True)

    def add(self, source: Source | TextSource, file_id: str, key: bytes, limits: SpoolLimits) -> Spooled:
        """Encrypt a file into the spool, and sync it.

        Raise `ProtocolError` blob_too_large, spool_full, source_changed, insufficient_storage. Nothing is
        left behind then.
        """
        blob_size = sealed_size(source.size)
        if source.size > limits.blob_bytes:
            raise too_large(source.size, limits.blob_bytes)
        try:
            make_private_dir(self._folder)
            if self.used() + blob_size > limits.spool_bytes:
                raise ProtocolError(
                    "spool_full",
                    f"The files that wait for the broker, with this one, have more than {limits.spool_bytes} "
                    "bytes ([files] spool_bytes). Wait until some have left, or raise the limit.",
                )
            limits.take_room(blob_size)
            return self._write(source, file_id, key)
        except OSError as error:
            self._discard(file_id)
            raise _storage(self._folder, error) from error
        except BaseException:
            self._discard(file_id)
            raise

    def _write(self, source: Source | TextSource, file_id: str, key: bytes) -> Spooled:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        # The file is closed behind the end of the threads that write to it.
        with (
            open(self.path(file_id), "wb", 0, opener=lambda path, _: os.open(path, flags, 0o600)) as copy,
            SyncedWriting(copy.fileno()) as writing,
        ):
            with Beside() as hashing:
                taken = _Taken(writing, hashing)
                _encrypt(source, StreamSealer(key), taken.add)
                hashing.wait()
            writing.wait()
            failpoint("share.before_spool_sync")
            os.fsync(copy.fileno())
        sync_dir(self._folder)
        if not source.is_unchanged(taken.size):
            raise ProtocolError(
                "source_changed",
                "The file was written while it was read, or it is no ordinary file. Nothing was sent. Copy "
                "it first, and send the copy.",
            )
        return Spooled(taken.size, taken.plain.hexdigest(), taken.blob_size, taken.sealed.hexdigest())

    def _discard(self, file_id: str) -> None:
        with suppress(OSError):
            self.remove(file_id)


class _Taken:
    """The chunks, hashed in both forms on a thread of their own, and written encrypted on another."""

    def __init__(self, writing: SyncedWriting, hashing: Beside) -> None:
        self._writing = writing
        self._hashing = hashing
        self.plain = hashlib.sha256()
        self.sealed = hashlib.sha256()
        self.size = self.blob_size = 0

    def add(self, plain: bytes, sealed: bytes) -> None:
        """Take a chunk."""
        self._writing.add(sealed)
        self._hashing.do(partial(self._hash, plain, sealed))
        self.size, self.blob_size = self.size + len(plain), self.blob_size + len(sealed)

    def _hash(self, plain: bytes, sealed: bytes) -> None:
        self.plain.update(plain)
        self.sealed.update(sealed)


def _encrypt(source: Source | TextSource, sealer: StreamSealer, take: Callable[[bytes, bytes], None]) -> None:
    """Pass on each chunk with its encrypted form, the header first. It ends behind a file that has grown."""
    take(b"", sealer.header)
    size, chunk = 0, source.read(CHUNK_BYTES)
    while True:
        following = source.read(CHUNK_BYTES) if len(chunk) == CHUNK_BYTES else b""
        take(chunk, sealer.seal(chunk, is_last=not following))
        size, chunk = size + len(chunk), following
        if size > source.size or not chunk:
            return


def too_large(size: int, limit: int) -> ProtocolError:
    """Return the error for a file that the broker does not take."""
    return ProtocolError(
        "blob_too_large",
        f"The file has {size} bytes, and the broker takes files of at most {limit}. "
        "Send less, or ask the broker's operator for a higher blob_bytes.",
        limit=limit,
    )


def _storage(folder: Path, error: OSError) -> ProtocolError:
    if error.errno in _FULL:
        text = f"The disk that holds {folder} is full, so nothing was sent. Free some space."
        return ProtocolError("insufficient_storage", text)
    text = f"{folder} cannot be used: {explain(error)}. Nothing was sent."
    return ProtocolError("storage_unavailable", text)
