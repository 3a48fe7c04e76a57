"""Opening of a file to share: a regular file outside of this program's own directory."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from claudemesh.daemon.files.view import check_shared_view
from claudemesh.protocol.errors import InvalidField, ProtocolError
from claudemesh.runtime.oserrors import explain

_MAX_PATH_BYTES = 4096


class Source(Struct, frozen=True):
    """An open file to share. The caller closes `descriptor`."""

    descriptor: int
    path: Path
    size: int
    modified_ns: int

    @property
    def name(self) -> str:
        """The name of the file."""
        return self.path.name

    def read(self, wanted: int) -> bytes:
        """Return exactly as many bytes, fewer at the end of the file. Raise `InvalidField`."""
        try:
            return read_fully(self.descriptor, wanted)
        except OSError as error:
            if not self.size:
                # As of files below /proc, whose errors say nothing of a disk.
                text = f"{self.path} is no ordinary file. Copy its content to a file first."
                raise InvalidField("not_a_regular_file", "path", text) from error
            raise _unreadable(self.path, error) from error

    def is_unchanged(self, seen: int) -> bool:
        """Whether `seen` bytes are the whole file, and it was not written since it was opened."""
        found = os.fstat(self.descriptor)
        return self.size == seen == found.st_size and self.modified_ns == found.st_mtime_ns


class TextSource(Struct):
    """A text that goes the way of a file. It holds at most 16 MiB."""

    raw: bytes
    at: int = 0

    @property
    def size(self) -> int:
        """The bytes of the text."""
        return len(self.raw)

    def read(self, wanted: int) -> bytes:
        """Return as many bytes, fewer at the end of the text."""
        part = self.raw[self.at : self.at + wanted]
        self.at += len(part)
        return part

    def is_unchanged(self, seen: int) -> bool:
        """Whether all of it was read."""
        return seen == self.size


def read_fully(descriptor: int, wanted: int) -> bytes:
    """Read exactly as many bytes, fewer at the end of the file."""
    parts = []
    while wanted and (part := os.read(descriptor, wanted)):
        parts.append(part)
        wanted -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def open_source(text: str, home: Path) -> Source:
    """Open a file for reading. Links are followed, and what they lead to is checked.

    Raise `ProtocolError` for a relative path, a file that cannot be read, a directory, a device, a FIFO, a
    socket, and every file below `home`, which holds keys: also by a hard link to it elsewhere.
    """
    path = _checked(text)
    try:
        real = Path(os.path.realpath(path, strict=True))
        # Looked at before it is opened: opening a device may already have an effect.
        _check_kind(real.stat(), path)
        _check_place(real, home, path)
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        found = os.fstat(descriptor)
        _check_kind(found, path)
        if found.st_nlink > 1 and _holds(home, found):
            raise _own(path, home)
    except BaseException:
        os.close(descriptor)
        raise
    return Source(descriptor, path, found.st_size, found.st_mtime_ns)


def is_path(text: str) -> bool:
    """Whether the system takes a text as a path."""
    try:
        raw = os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return b"\0" not in raw and len(raw) <= _MAX_PATH_BYTES


def check_outside(path: Path, home: Path, field: str) -> None:
    """Raise `InvalidField` for a path in this program's own directory, where files are its own."""
    if _is_below(path, home):
        text = f"{path} is in {home}, the directory of claudemesh itself. Use a path outside of it."
        raise InvalidField("own_directory", field, text)


def _checked(text: str) -> Path:
    if not is_path(text):
        raise InvalidField("invalid_field", "path", "path must be the path of a file.")
    path = Path(text)
    if not path.is_absolute():
        text = "path must be absolute: the daemon runs in a directory of its own."
        raise InvalidField("invalid_field", "path", text)
    return path


def _check_kind(found: os.stat_result, path: Path) -> None:
    if stat.S_ISREG(found.st_mode):
        return
    is_dir = stat.S_ISDIR(found.st_mode)
    what = "a directory" if is_dir else "a device, a pipe or a socket"
    remedy = "Copy its content to a file first."
    if is_dir:
        remedy = f"Pack it first: `tar czf {path.name}.tar.gz {path.name}`, and send that file."
    raise InvalidField("not_a_regular_file", "path", f"{path} is {what}, and only files are shared. {remedy}")


def _check_place(real: Path, home: Path, path: Path) -> None:
    if _is_below(real, home):
        raise _own(path, home)


def _own(path: Path, home: Path) -> InvalidField:
    text = f"{path} is a file of {home}, which holds the keys of this host, so it is not shared."
    return InvalidField("own_directory", "path", text)


def _is_below(path: Path, home: Path) -> bool:
    """Whether a resolved path leads through `home`, also by another spelling of it or another mount."""
    if path.is_relative_to(os.path.realpath(home)):
        return True
    try:
        own = home.stat()
    except FileNotFoundError:
        return False
    return any(os.path.samestat(own, folder.stat()) for folder in (path, *path.parents))


def _holds(home: Path, found: os.stat_result) -> bool:
    """Whether a file with several names has one in a directory or below it."""
    folders = [os.fspath(home)]
    while folders:
        try:
            entries = list(os.scandir(folders.pop()))
        except (FileNotFoundError, PermissionError):
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
                continue
            # A file that is deleted meanwhile is another one.
            with suppress(FileNotFoundError):
                if os.path.samestat(entry.stat(follow_symlinks=False), found):
                    return True
    return False


def _unreadable(path: Path, error: OSError) -> ProtocolError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        check_shared_view(path, "path")
        return InvalidField("file_not_found", "path", f"There is no file {path}.")
    return InvalidField("file_unreadable", "path", f"{path} cannot be read: {explain(error)}.")
