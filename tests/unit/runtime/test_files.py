"""Files are complete, private, and owned by this user."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from claudemesh.runtime.failpoints import install
from claudemesh.runtime.files import (
    FileLock,
    UnsafeFile,
    make_private_dir,
    read_own,
    read_private,
    write_atomic,
)


def test_a_secret_is_0600_under_any_umask(tmp_path: Path) -> None:
    """The mode does not depend on the user's umask."""
    previous = os.umask(0)
    try:
        write_atomic(tmp_path / "key", b"secret")
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


@pytest.mark.parametrize("point", ["file.after_write", "file.after_sync"])
def test_a_crash_while_writing_leaves_the_old_file_whole(tmp_path: Path, point: str) -> None:
    """Old or new, never mixed."""
    path = tmp_path / "key"
    write_atomic(path, b"old")

    def crash(name: str) -> None:
        if name == point:
            raise OSError("crash")

    install(crash)
    try:
        with pytest.raises(OSError, match="crash"):
            write_atomic(path, b"new")
    finally:
        install(None)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o666])
def test_a_secret_that_others_can_read_is_refused_with_the_chmod(tmp_path: Path, mode: int) -> None:
    """The message names what mends it."""
    path = tmp_path / "key"
    path.write_bytes(b"secret")
    path.chmod(mode)
    with pytest.raises(UnsafeFile, match=r"chmod 600 .*key"):
        read_private(path)


def test_a_readable_public_file_is_read_and_a_writable_one_refused(tmp_path: Path) -> None:
    """config.toml may be seen, not changed, by others."""
    path = tmp_path / "config.toml"
    path.write_bytes(b"x")
    path.chmod(0o644)
    assert read_own(path) == b"x"
    path.chmod(0o664)
    with pytest.raises(UnsafeFile):
        read_own(path)


def test_links_and_fifos_are_not_followed(tmp_path: Path) -> None:
    """Neither a symbolic link nor a FIFO in a secret's place is read; a FIFO does not hang us."""
    (tmp_path / "real").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "fifo", 0o600)
    for name in ("link", "fifo"):
        with pytest.raises(UnsafeFile):
            read_private(tmp_path / name)


def test_a_directory_that_others_can_write_is_refused(tmp_path: Path) -> None:
    """Private directories are made 0700, and refused when they are not private."""
    make_private_dir(tmp_path / "a" / "b")
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    (tmp_path / "a" / "b").chmod(0o777)
    with pytest.raises(UnsafeFile, match="chmod 700"):
        make_private_dir(tmp_path / "a" / "b")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with pytest.raises(UnsafeFile):
        make_private_dir(tmp_path / "link")


def test_a_lock_has_one_holder(tmp_path: Path) -> None:
    """The second gets False at once; after release it may have it."""
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.acquire()
    assert not second.acquire()
    first.release()
    assert second.acquire()
    second.release()


def test_a_check_of_a_lock_keeps_no_process_from_taking_it(tmp_path: Path) -> None:
    """A command looks every few milliseconds whether the broker that it starts has its lock."""
    lock, path = FileLock(tmp_path / "lock"), tmp_path / "lock"
    assert lock.acquire()
    lock.release()
    ended = threading.Event()

    def check() -> None:
        while not ended.wait(0.0005):
            FileLock(path).is_held()

    threads = [threading.Thread(target=work) for work in (check, check)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5000):
            assert lock.acquire()
            assert not FileLock(path).acquire()
            lock.release()
    finally:
        ended.set()
        for thread in threads:
            thread.join()
