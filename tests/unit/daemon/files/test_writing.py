"""Writing of a large file that is synced meanwhile."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from claudemesh.daemon.files.target import open_target
from claudemesh.daemon.files.writing import SyncedWriting
from claudemesh.runtime import failpoints

MIB = 1 << 20


@contextmanager
def opened(path: Path) -> Generator[int]:
    """A new file."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def failing_once() -> Generator[list[int]]:
    """Let the first sync of a file fail as a disk does, and the later ones succeed. Yield their threads."""
    threads: list[int] = []

    def strike(name: str) -> None:
        if name == "files.before_sync":
            threads.append(threading.get_ident())
            if len(threads) == 1:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

    failpoints.install(strike)
    try:
        yield threads
    finally:
        failpoints.install(None)


def test_bytes_are_written_in_order_and_reported_when_they_are_in_the_file(tmp_path: Path) -> None:
    pieces = [os.urandom(size) for size in (0, 1, 300_000, MIB + 17, 5)]
    sizes: list[int] = []
    with opened(tmp_path / "file") as descriptor:
        with SyncedWriting(descriptor) as writing:
            for piece in pieces:
                writing.add(piece, lambda: sizes.append(os.fstat(descriptor).st_size))
            writing.wait()
        assert (tmp_path / "file").read_bytes() == b"".join(pieces)
    ends = [0, 1, 300_001, MIB + 300_018, MIB + 300_023]
    assert len(sizes) == len(ends)
    assert all(end <= size for end, size in zip(ends, sizes, strict=True))


def test_bytes_that_were_given_before_an_error_of_the_caller_are_in_the_file(tmp_path: Path) -> None:
    """A download that is interrupted goes on behind them."""
    content = os.urandom(MIB + 70_000)
    with opened(tmp_path / "file") as descriptor:
        with pytest.raises(ConnectionError), SyncedWriting(descriptor) as writing:
            writing.add(content)
            raise ConnectionError
        assert (tmp_path / "file").read_bytes() == content


def test_a_sync_that_fails_leaves_no_byte_that_a_later_one_would_pass_for(tmp_path: Path) -> None:
    """The file is synced every 16 MiB. The failure is raised, at the latest with the end of the block."""
    with opened(tmp_path / "file") as descriptor:
        with (
            pytest.raises(OSError, match="Input/output"),
            failing_once(),
            SyncedWriting(descriptor) as writing,
        ):
            for _ in range(17):
                writing.add(bytes(MIB))
            raise KeyError
        assert (tmp_path / "file").stat().st_size == 0


def test_a_last_sync_that_fails_empties_the_temporary_file(tmp_path: Path) -> None:
    """Otherwise the next attempt would resume behind bytes that are on no disk."""
    target = open_target(str(tmp_path), "name", "01HZ0000000000000000000000", tmp_path / "home")
    os.write(target.descriptor, b"content")
    with failing_once(), pytest.raises(OSError, match="Input/output"):
        target.finish()
    assert os.fstat(target.descriptor).st_size == 0
    assert not target.path.exists()
    target.close()
