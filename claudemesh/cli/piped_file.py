"""Private directory of a download to standard output, which the same command finds again after a cut."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def kept_folder(*names: str) -> Generator[Path]:
    """Hold the directory of a download with these names, and delete it when the block ends well.

    Behind an error, or the end of the process, it stays for the next command with the same names. While
    another process holds it, or another user has it, the directory is a new one.
    """
    digest = hashlib.sha256("\0".join(names).encode(errors="surrogateescape")).hexdigest()[:32]
    folder = Path(tempfile.gettempdir(), f"claudemesh-{os.geteuid()}-{digest}")
    held = _hold(folder)
    if held is None:
        with tempfile.TemporaryDirectory(prefix="claudemesh-") as fresh:
            yield Path(fresh)
        return
    try:
        yield folder
        shutil.rmtree(folder, ignore_errors=True)
    except BrokenPipeError:
        # The reader of standard output has gone.
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except BaseException:
        # Nothing is kept where nothing has come.
        with suppress(OSError):
            folder.rmdir()
        raise
    finally:
        os.close(held)


def empty(folder: Path) -> None:
    """Delete the files in a directory."""
    for path in folder.iterdir():
        path.unlink(missing_ok=True)


def _hold(folder: Path) -> int | None:
    """Make or open a private directory, and lock it. None: it is not to be had."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    try:
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = os.fstat(held)
        is_private = found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o077
        # The one that had the lock before may have deleted it.
        if is_private and os.path.samestat(found, folder.lstat()):
            return held
    except OSError:
        pass
    os.close(held)
    return None
