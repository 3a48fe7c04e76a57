"""Operating system errors with a local cause, as sentences with reason and remedy."""

from __future__ import annotations

import errno
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from claudemesh.runtime.exits import PERMISSION, TEMPORARY, USAGE, ExitWith


@dataclass(frozen=True, slots=True)
class LocalCause:
    """A cause on this machine: a stable code, the reason, and the remedy. Both are parts of a sentence."""

    code: str
    reason: str
    remedy: str
    exit_code: int = TEMPORARY


_DISK_FULL = LocalCause("disk_full", "the disk is full", "free some space")
_DENIED = LocalCause("access_denied", "access is denied", "give it to this user", PERMISSION)
_LOCAL_TO_A_CONNECTION = frozenset(
    {"disk_full", "read_only_file_system", "too_many_open_files", "out_of_memory"}
)
_WRONG_PATH = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG})
_NUMBERS = re.compile(r"\[Errno -?\d+\] ")
_CAUSES = {
    errno.ENOSPC: _DISK_FULL,
    errno.EDQUOT: LocalCause("disk_full", "the disk quota is used up", "free some space or raise the quota"),
    errno.EFBIG: LocalCause(
        "disk_full", "a file would pass the allowed size", "raise the limit (ulimit -f, LimitFSIZE=)"
    ),
    errno.EROFS: LocalCause(
        "read_only_file_system", "the file system is read-only", "mount it read-write again"
    ),
    errno.EMFILE: LocalCause(
        "too_many_open_files",
        "this process may open no more files",
        "raise its limit (ulimit -n, LimitNOFILE=)",
    ),
    errno.ENFILE: LocalCause(
        "too_many_open_files", "this machine may open no more files", "raise the limit (sysctl fs.file-max)"
    ),
    errno.ENOMEM: LocalCause("out_of_memory", "there is no memory left", "free some memory"),
    errno.EAGAIN: LocalCause(
        "out_of_processes", "no more processes can be started", "raise the limit (ulimit -u)"
    ),
    errno.EIO: LocalCause("disk_failed", "the disk failed", "check the disk"),
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
}


def local_cause(error: BaseException | None) -> LocalCause | None:
    """Return the local cause of an error, or of the error that it was raised from; None for any other."""
    seen = 0
    while error is not None and seen < 8:
        if isinstance(error, OSError) and error.errno in _CAUSES:
            return _CAUSES[error.errno]
        error, seen = error.__cause__ or error.__context__, seen + 1
    return None


def local_trouble(error: BaseException) -> LocalCause | None:
    """Return the cause on this machine for which a connection failed; None for the network or the peer.

    A resolver or a TLS library that runs out of descriptors reports another error, so one is opened here as
    a check.
    """
    found = local_cause(error)
    if found is not None and found.code in _LOCAL_TO_A_CONNECTION:
        return found
    return descriptor_cause()


def descriptor_cause(count: int = 1) -> LocalCause | None:
    """Return the cause for which `count` more descriptors cannot be opened now; None when they can."""
    opened: list[int] = []
    try:
        while len(opened) < count:
            opened.append(os.open(os.sep, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        return local_cause(error)
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return None


def require_descriptors(count: int) -> None:
    """Raise `ExitWith` unless `count` more files can be opened: without them the process could not answer."""
    cause = descriptor_cause(count)
    if cause is not None:
        text = f"At least {count} more files must be open at a time, but {cause.reason}: {cause.remedy}."
        raise ExitWith(cause.exit_code, cause.code, text)


def explain(error: OSError) -> str:
    """Return `reason: remedy` for an error, or the system's message when no remedy is known."""
    cause = local_cause(error)
    if cause is not None:
        return f"{cause.reason}: {cause.remedy}"
    # A resolver has numbers of its own.
    return error.strerror or str(error) or type(error).__name__


def words(error: BaseException) -> str:
    """Return the text of an error of the network without its numbers, for people."""
    return _NUMBERS.sub("", str(error)) or type(error).__name__


def cannot(verb: str, error: OSError, thing: object = None) -> ExitWith:
    """Return the `ExitWith` for a failed operation on a file, with the exit code of its cause."""
    cause = local_cause(error)
    name = thing if thing is not None else error.filename or "a file"
    if cause is None:
        return ExitWith(TEMPORARY, "os_error", f"Cannot {verb} {name}: {explain(error)}.")
    return ExitWith(
        cause.exit_code,
        cause.code,
        f"Cannot {verb} {name}: {cause.reason}. Next: {cause.remedy}, then try again.",
    )


def cannot_read(error: OSError, path: Path) -> ExitWith:
    """Return the `ExitWith` for a file that a user has named and that cannot be read: 64 for a wrong path."""
    if error.errno not in _WRONG_PATH:
        return cannot("read", error, path)
    return ExitWith(USAGE, "no_such_file", f"Cannot read {path}: {explain(error)}. Name another file.")


def cannot_write(error: OSError, path: Path) -> ExitWith:
    """Return the `ExitWith` for a file that a user has named and that cannot be made: 64 for a wrong path."""
    if error.errno not in _WRONG_PATH:
        return cannot("write", error, path)
    folder = path.absolute().parent
    if os.path.lexists(folder):
        return ExitWith(USAGE, "no_such_file", f"Cannot write {path}: {explain(error)}. Name another file.")
    text = f"Cannot write {path}: its folder does not exist."
    return ExitWith(USAGE, "no_such_folder", text, next=f"mkdir -p {shlex.quote(str(folder))}")
