"""Writing of a received file: below one directory, under a name that nothing has, and only when it is whole.

The parts go to a temporary file `.<file_id>.part` in the same directory, which a later attempt continues. The
final name is a link to it, made when everything is verified, so no other file is ever replaced.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path

from claudemesh.daemon.files.names import safe_name
from claudemesh.daemon.files.source import check_outside, is_path
from claudemesh.daemon.files.view import check_shared_view, read_only_remedy
from claudemesh.protocol.errors import InvalidField, ProtocolError
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.oserrors import explain

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK)


class Target:
    """An open temporary file, and the name that it gets. Its methods block.

    `is_named`: a download that a crash has interrupted behind the name left the whole file.
    """

    def __init__(self, folder: Path, name: str, file_id: str) -> None:
        """Open the folder and the temporary file. Raise `ProtocolError`; `OSError` for the caller to wrap."""
        self.path = folder / name
        self._name = name
        self._part = f".{file_id}.part"
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.descriptor = -1
        try:
            self.is_named = self._is_named()
            if not self.is_named:
                self.descriptor = self._open_part()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close both. The temporary file stays for a later attempt."""
        for descriptor in (self.descriptor, self._folder):
            if descriptor >= 0:
                os.close(descriptor)
        self.descriptor = self._folder = -1

    def finish(self) -> None:
        """Sync the file and give it its name. `ProtocolError` file_exists."""
        if not self.is_named:
            self._sync()
            failpoint("fetch.before_name")
            self._give_name()
        os.fsync(self._folder)
        failpoint("fetch.after_name")

    def tidy(self) -> None:
        """Remove the name of the temporary file, when the end of the download is written down."""
        with suppress(FileNotFoundError):
            os.unlink(self._part, dir_fd=self._folder)

    def drop_empty(self) -> None:
        """Remove a temporary file that has nothing for a later attempt."""
        if self.descriptor >= 0 and not os.fstat(self.descriptor).st_size:
            self.tidy()

    def _sync(self) -> None:
        """Sync the file. A failure empties it: the next sync may succeed though its bytes are on no disk."""
        try:
            failpoint("files.before_sync")
            os.fsync(self.descriptor)
        except OSError:
            os.ftruncate(self.descriptor, 0)
            raise

    def _give_name(self) -> None:
        folder = self._folder
        try:
            os.link(self._part, self._name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        except FileExistsError:
            raise self._exists() from None
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # This file system has no links: the name is taken first, and the file moved onto it.
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                os.close(os.open(self._name, flags, 0o600, dir_fd=folder))
            except FileExistsError:
                raise self._exists() from None
            os.rename(self._part, self._name, src_dir_fd=folder, dst_dir_fd=folder)

    def _is_named(self) -> bool:
        """Whether the name is the temporary file, as a crash behind the name leaves it.

        Raise `ProtocolError` file_exists for a name that is taken.
        """
        try:
            found = os.stat(self._name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        with suppress(FileNotFoundError):
            part = os.stat(self._part, dir_fd=self._folder, follow_symlinks=False)
            if os.path.samestat(found, part) and _is_ours(found):
                return True
        raise self._exists()

    def _open_part(self) -> int:
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            opened = os.open(self._part, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self._folder)
        except FileExistsError:
            opened = self._open_earlier(flags)
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(opened)
            text = f"Another program is writing {self.path}. Wait until it has ended."
            raise ProtocolError("file_exists", text) from None
        return opened

    def _open_earlier(self, flags: int) -> int:
        """Open the temporary file of an earlier attempt. Another user's file and a link are refused."""
        part = self.path.with_name(self._part)
        try:
            opened = os.open(self._part, flags, dir_fd=self._folder)
        except OSError as error:
            raise _unsafe(part) from error
        found = os.fstat(opened)
        if not _is_ours(found) or found.st_nlink > 1:
            os.close(opened)
            raise _unsafe(part)
        return opened

    def _exists(self) -> ProtocolError:
        text = f"{self.path} exists, and no file is replaced. Choose another name or directory."
        return ProtocolError("file_exists", text)


def _is_ours(found: os.stat_result) -> bool:
    """Whether a file is a regular one of this user, and no other may write to it."""
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022


def open_target(out: str, offered: str, file_id: str, home: Path) -> Target:
    """Open the target of a download: `out` is a directory, or the path of a file to create in one.

    Raise `ProtocolError`.
    """
    folder = Path(out)
    try:
        folder, name = _place(out, offered)
        real = Path(os.path.realpath(folder, strict=True))
        check_outside(real, home, "out")
        return Target(real, name, file_id)
    except (FileNotFoundError, NotADirectoryError) as error:
        if folder.is_dir():
            # As /proc answers.
            text = f"{folder} takes no files. Choose another directory."
            raise InvalidField("file_unwritable", "out", text) from error
        check_shared_view(folder, "out")
        raise InvalidField("directory_not_found", "out", f"There is no directory {folder}.") from error
    except OSError as error:
        raise cannot_write(folder, error) from error


def cannot_write(path: Path, error: OSError) -> ProtocolError:
    """Return the error for a target that cannot be written."""
    if error.errno in _FULL:
        text = f"The disk that holds {path} is full. Free some space: the download continues where it was."
        return ProtocolError("insufficient_storage", text)
    reason = read_only_remedy(path) if error.errno == errno.EROFS else explain(error)
    return InvalidField("file_unwritable", "out", f"{path} cannot be written: {reason}.")


def _place(out: str, offered: str) -> tuple[Path, str]:
    path = Path(out)
    if not is_path(out) or not path.is_absolute():
        text = "out must be the absolute path of a directory, or of a file to create in one."
        raise InvalidField("invalid_field", "out", text)
    if path.is_dir() or out.endswith("/"):
        return path, safe_name(offered)
    if path.name in ("", ".", ".."):
        raise InvalidField("invalid_field", "out", "out must not end with `.` or `..`.")
    return path.parent, path.name


def _unsafe(part: Path) -> ProtocolError:
    text = f"{part} is not the temporary file of an earlier download. Move it away."
    return ProtocolError("unsafe_file", text)
