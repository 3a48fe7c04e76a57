"""Bytes of blobs as files of the data directory: `blobs/ID.part` while they arrive, `blobs/ID` when complete.

Crash story of an upload:

| failpoint | stands behind | a crash here leaves |
|---|---|---|
| `blob.after_write` | bytes written to the part | a part that is cut back to what the row counts |
| `blob.after_sync` | the part on the disk | likewise |
| `blob.after_progress` | the row that counts the bytes | an upload that goes on behind them |
| `blob.after_rename` | the part renamed, and the folder on the disk | a file that becomes the part again |
| `blob.after_complete` | the row that is complete | a complete blob |
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from claudemesh.runtime.errors import StorageFull, StorageUnavailable
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.files import make_private_dir, sync_dir
from claudemesh.runtime.oserrors import explain, local_cause
from claudemesh.runtime.uncached import Bytes, read_at, write_at

_PART = ".part"
_PIECE = 1 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITE = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


class BlobFiles:
    """The files of one folder. Every method blocks, and raises `StorageError`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def resume(self, blob_id: str, received: int) -> int:
        """Make the part of an upload as long as the bytes that count; return their number."""
        final, part = self._final(blob_id), self._part(blob_id)
        with _storage():
            make_private_dir(self._folder)
            if final.exists() and not part.exists():
                final.rename(part)
            descriptor = os.open(part, _WRITE | os.O_CREAT, 0o600)
            try:
                os.fchmod(descriptor, 0o600)
                size = min(received, os.fstat(descriptor).st_size)
                os.ftruncate(descriptor, size)
            finally:
                os.close(descriptor)
            sync_dir(self._folder)
            return size

    def append(self, blob_id: str, at: int, data: memoryview) -> bool:
        """Write bytes of a `Buffer` at the end of the part. False: there is no part of this length."""
        with _storage(), self._opened(blob_id) as descriptor:
            if descriptor is None or os.fstat(descriptor).st_size < at:
                return False
            write_at(descriptor, at, data)
            failpoint("blob.after_write")
            return True

    def sync(self, blob_id: str) -> bool:
        """Bring a part to the disk. False: there is none."""
        with _storage(), self._opened(blob_id) as descriptor:
            if descriptor is None:
                return False
            os.fsync(descriptor)
            failpoint("blob.after_sync")
            return True

    def publish(self, blob_id: str, size: int, sha256: bytes, digest: bytes | None) -> bool:
        """Give a whole part its final name. False: its size or its hash is another one.

        `digest` is the hash of its bytes where they were hashed as they were written. Without it they are
        read again.
        """
        part = self._part(blob_id)
        with _storage():
            with self._opened(blob_id) as descriptor:
                if descriptor is None or os.fstat(descriptor).st_size != size:
                    return False
                os.fsync(descriptor)
                failpoint("blob.after_sync")
                if (digest or _digest(descriptor)) != sha256:
                    return False
            part.rename(self._final(blob_id))
            sync_dir(self._folder)
            failpoint("blob.after_rename")
        return True

    def read(self, blob_id: str, at: int, limit: int) -> Bytes:
        """Return bytes of a complete blob; none where there are none."""
        with _storage():
            try:
                descriptor = os.open(self._final(blob_id), _READ)
            except FileNotFoundError:
                return b""
            try:
                piece = bytearray(limit)
                return memoryview(piece)[: read_at(descriptor, at, piece)]
            finally:
                os.close(descriptor)

    def size(self, blob_id: str) -> int | None:
        """Return the size of a complete blob, None when its file is missing."""
        with _storage():
            try:
                return self._final(blob_id).lstat().st_size
            except FileNotFoundError:
                return None

    def remove(self, blob_id: str) -> None:
        """Delete the files of a blob."""
        with _storage():
            self._part(blob_id).unlink(missing_ok=True)
            self._final(blob_id).unlink(missing_ok=True)

    def ids(self) -> set[str]:
        """Return the ids that have a file."""
        with _storage():
            try:
                return {path.name.removesuffix(_PART) for path in self._folder.iterdir()}
            except FileNotFoundError:
                return set()

    @contextmanager
    def _opened(self, blob_id: str) -> Generator[int | None]:
        """Open the part of an upload, None where there is none."""
        try:
            descriptor = os.open(self._part(blob_id), _WRITE)
        except FileNotFoundError:
            yield None
            return
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _final(self, blob_id: str) -> Path:
        return self._folder / blob_id

    def _part(self, blob_id: str) -> Path:
        return self._folder / f"{blob_id}{_PART}"


def _digest(descriptor: int) -> bytes:
    """Return the SHA-256 of a whole file."""
    found, at = hashlib.sha256(), 0
    piece = memoryview(bytearray(_PIECE))
    while size := read_at(descriptor, at, piece):
        found.update(piece[:size])
        at += size
    return found.digest()


@contextmanager
def _storage() -> Generator[None]:
    """Turn errors of the operating system into storage errors."""
    try:
        yield
    except OSError as error:
        cause = local_cause(error)
        kind = StorageFull if cause is not None and cause.code == "disk_full" else StorageUnavailable
        raise kind(f"a blob could not be stored: {explain(error)}") from error
