"""Files: atomic writes, private modes, and locks."""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.trust import distrust

_OTHERS = 0o077
_WRITABLE_BY_OTHERS = 0o022
# A check of a lock is over by then, unless its process is not scheduled.
_CHECK_S = 0.001


class UnsafeFile(Exception):
    """A file or directory that other users could read or change. The message names the chmod that corrects
    it."""


def make_private_dir(path: Path) -> None:
    """Make a directory 0700, parents too. `UnsafeFile` when another user can change or replace it."""
    if not path.parent.exists():
        make_private_dir(path.parent)
    try:
        path.mkdir(mode=0o700)
        sync_dir(path.parent)
    except FileExistsError:
        pass
    check_private_dir(path)


def check_private_dir(path: Path) -> None:
    """Raise `UnsafeFile` unless the directory is this user's and no other user can change or replace it."""
    reason = distrust(os.fspath(path))
    if reason is not None:
        raise UnsafeFile(reason)


def write_atomic(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace a file atomically: a crash leaves the old or the new content.

    Order: temporary file beside it, fsync, rename, fsync of the directory. `OSError` names the file.
    """
    try:
        _write_atomic(path, data, mode)
    except OSError as error:
        # A failed write does not know the file's name, and a failed open knows the temporary one.
        raise OSError(error.errno, error.strerror, str(path)) from error


def _write_atomic(path: Path, data: bytes, mode: int) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, mode)
    try:
        try:
            os.fchmod(descriptor, mode)
            _write_all(descriptor, data)
            failpoint("file.after_write")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        failpoint("file.after_sync")
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    failpoint("file.after_rename")
    sync_dir(path.parent)


def append_private(path: Path, offset: int, data: bytes) -> None:
    """Write at `offset` of a secret file (0600), truncate it behind `data`, and sync it.

    So an earlier write that was cut short is overwritten. A crash leaves the old end, or a part of `data`.
    """
    try:
        is_new = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
            os.ftruncate(descriptor, offset)
            os.lseek(descriptor, offset, os.SEEK_SET)
            _write_all(descriptor, data)
            failpoint("file.after_append")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            sync_dir(path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def read_private(path: Path, limit: int = 4 << 20, *, for_root: bool = False) -> bytes:
    """Read a secret file. `UnsafeFile` when it is a link, foreign, or readable by others.

    With `for_root`, root also reads the file of a service that runs as another user: the owner of its folder.
    """
    return _read(path, _OTHERS, limit, for_root)


def read_own(path: Path, limit: int = 16 << 20, *, for_root: bool = False) -> bytes:
    """Read a file that others may see but not change. `for_root` as with `read_private`."""
    return _read(path, _WRITABLE_BY_OTHERS, limit, for_root)


def open_own(path: Path, *, for_root: bool = False) -> BinaryIO:
    """Open a file for reading that others may see but not change. `UnsafeFile` as with `read_own`."""
    return _open(path, _WRITABLE_BY_OTHERS, for_root)


def sync_dir(path: Path) -> None:
    """Sync a directory, so that added and removed names are durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file that is only a hint. A failure is ignored."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _open(path: Path, forbidden: int, for_root: bool = False) -> BinaryIO:
    try:
        # O_NONBLOCK: a FIFO in the file's place must not block the process.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if path.is_symlink():
            raise UnsafeFile(f"{path} is a symbolic link: replace it with the file itself") from error
        raise
    file = os.fdopen(descriptor, "rb")
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise UnsafeFile(f"{path} is not a regular file: move it away")
        if found.st_uid not in _owners(path, for_root):
            raise UnsafeFile(f"{path} belongs to another user: run chown {os.geteuid()} {path}")
        if found.st_mode & forbidden:
            raise UnsafeFile(
                f"others can {'read' if forbidden & 0o044 else 'write'} {path}: run chmod 600 {path}"
            )
    except BaseException:
        file.close()
        raise
    return file


def _owners(path: Path, for_root: bool) -> set[int]:
    """Return the users whose file may be read: this one, and for root the owner of the folder."""
    own = os.geteuid()
    return {own, path.parent.stat().st_uid} if for_root and own == 0 else {own}


def _read(path: Path, forbidden: int, limit: int, for_root: bool) -> bytes:
    with _open(path, forbidden, for_root) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise UnsafeFile(f"{path} is larger than {limit} bytes: it is not a file of ours")
    return data


class FileLock:
    """Lock of the operating system on a file. It ends with the process that holds it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Take the lock, or return False at once when another process holds it."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self.path, flags, 0o600)
        while not _locked(descriptor, fcntl.LOCK_EX):
            # A check by `is_held` is no holder: it lets others take a shared lock, and ends.
            if not _locked(descriptor, fcntl.LOCK_SH):
                os.close(descriptor)
                return False
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            time.sleep(_CHECK_S)
        self._descriptor = descriptor
        return True

    def wait(self) -> None:
        """Take the lock when no other process holds it any more."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self.path, flags, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        self._descriptor = descriptor

    def is_held(self) -> bool:
        """Whether a process holds the lock. The check takes it shared for a moment."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return not _locked(descriptor, fcntl.LOCK_SH)
        finally:
            os.close(descriptor)

    def release(self) -> None:
        """Release the lock. The file stays, so that no process locks a file that is already unlinked."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _locked(descriptor: int, kind: int) -> bool:
    """Take a lock of a kind at once, and return whether that was possible."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
