"""Private home: a temporary `$CLAUDEMESH_HOME` of an ephemeral member (docs/spec/lifecycle.md, Identity
modes).

It lies in memory where the system has a file system for that. Each user has one folder for all of its
private homes. A home is in use while a process holds its `in_use` lock or a daemon holds the lock of its
mesh. The operating system releases both when the process ends, also by SIGKILL, and the next start of an
ephemeral member removes the homes that are not in use.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.files import FileLock, UnsafeFile, make_private_dir
from claudemesh.runtime.oserrors import cannot

_IN_USE = "in_use"
_GUARD = "lock"
_POLL_S = 0.01


class PrivateHome:
    """A private home and the lock that keeps it. `close` removes it unless a daemon still runs in it."""

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def make(cls) -> PrivateHome:
        """Remove homes that are not in use, and make a new one. `ExitWith` when there is no place for one."""
        refused: OSError | UnsafeFile | None = None
        for base in _bases():
            try:
                return cls._make_in(base)
            except (OSError, UnsafeFile) as error:
                refused = error
        cause = refused if isinstance(refused, OSError) else OSError(str(refused))
        raise cannot("make a private folder", cause, Path(tempfile.gettempdir()))

    @classmethod
    def _make_in(cls, base: Path) -> PrivateHome:
        make_private_dir(base)
        guard = FileLock(base / _GUARD)
        # No home is removed between its creation and its lock: both happen under the guard.
        guard.wait()
        try:
            _sweep(base)
            path = base / secrets.token_hex(4)
            path.mkdir(mode=0o700)
            failpoint("private_home.after_mkdir")
            lock = FileLock(path / _IN_USE)
            lock.acquire()
        finally:
            guard.release()
        failpoint("private_home.after_lock")
        return cls(path, lock)

    @classmethod
    def of(cls, home: Path) -> PrivateHome | None:
        """Take over a private home that no launcher keeps; None for any other folder, or when one does."""
        if home.parent not in _bases():
            return None
        lock = FileLock(home / _IN_USE)
        try:
            return cls(home, lock) if lock.acquire() else None
        except OSError:
            return None

    def close(self, *, wait_s: float = 0) -> None:
        """Remove the home. It stays while a daemon runs in it, which removes it at its end.

        A daemon that was killed removes nothing, and keeps its lock until its memory is freed. `wait_s` is
        the longest wait for the end of a daemon.
        """
        deadline = time.monotonic() + wait_s
        while _has_daemon(self.path) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        guard = FileLock(self.path.parent / _GUARD)
        with suppress(OSError):
            guard.wait()
        try:
            if not _has_daemon(self.path):
                shutil.rmtree(self.path, ignore_errors=True)
            self._lock.release()
        finally:
            guard.release()


def _bases() -> list[Path]:
    """Return the folders for private homes, the best first: in memory, and of this user alone."""
    own = f"claudemesh-{os.geteuid()}"
    places = []
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        places.append(Path(runtime))
    if sys.platform.startswith("linux"):
        places.append(Path("/dev/shm"))  # noqa: S108 - the folder below it is private
    places.append(Path(tempfile.gettempdir()))
    return [place / own for place in places if place.is_dir()]


def _sweep(base: Path) -> None:
    """Remove the private homes of a folder that no process uses."""
    for path in _homes(base):
        lock = FileLock(path / _IN_USE)
        try:
            is_free = lock.acquire()
        except OSError:
            is_free = True
        try:
            if is_free and not _has_daemon(path):
                shutil.rmtree(path, ignore_errors=True)
        finally:
            lock.release()


def _homes(base: Path) -> Iterator[Path]:
    for path in base.iterdir():
        if path.is_dir() and not path.is_symlink():
            yield path


def _has_daemon(home: Path) -> bool:
    with suppress(OSError):
        return any(FileLock(root / "lock").is_held() for root in (home / "daemon").iterdir())
    return False
