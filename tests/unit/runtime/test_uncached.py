"""Reading and writing of large files past the page cache."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from claudemesh.runtime.uncached import BLOCK, BlockWriter, Buffer, read_at, write_at


@contextmanager
def opened(path: Path, flags: int = os.O_RDWR | os.O_CREAT) -> Generator[int]:
    """An open file."""
    descriptor = os.open(path, flags, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def is_cached(descriptor: int, at: int) -> bool:
    """Whether a page of a file is in the page cache. A read that may not wait would bring it there."""
    told = (ctypes.c_ubyte * 1)()
    with mmap.mmap(descriptor, os.fstat(descriptor).st_size) as view:
        begin = ctypes.c_char.from_buffer(view)
        failed = ctypes.CDLL(None).mincore(ctypes.c_void_p(ctypes.addressof(begin) + at), 1, told)
        del begin
    assert not failed
    return bool(told[0] & 1)


def can_pass_the_cache(folder: Path) -> bool:
    """Whether a file in the folder can be written directly, and asked for its pages."""
    try:
        with opened(folder / "probe", os.O_RDWR | os.O_CREAT | os.O_DIRECT) as descriptor:
            os.pwrite(descriptor, Buffer(4096).view, 0)
        with opened(folder / "probe") as descriptor:
            return not is_cached(descriptor, 0)
    except (OSError, AttributeError, NotImplementedError):
        return False


@pytest.mark.parametrize("begin", [0, 1, 4096, BLOCK - 1, BLOCK])
def test_any_pieces_from_any_position_are_in_the_file_in_order(tmp_path: Path, begin: int) -> None:
    pieces = [os.urandom(size) for size in (24, 0, BLOCK + 17, BLOCK + 17, 4096, 2 * BLOCK, 5)]
    whole = b"".join(pieces)
    with opened(tmp_path / "file") as descriptor:
        os.write(descriptor, bytes(begin))
        writer = BlockWriter(descriptor)
        for piece in pieces:
            writer.add(piece)
            assert os.fstat(descriptor).st_size == writer.end
        writer.flush()
        assert writer.end == begin + len(whole)
        writer.add(b"more")
        writer.flush()
    assert (tmp_path / "file").read_bytes() == bytes(begin) + whole + b"more"


def test_whole_blocks_are_written_past_the_cache(tmp_path: Path) -> None:
    """The rest of a file goes through it."""
    if not can_pass_the_cache(tmp_path):
        pytest.skip("the file system of the temporary folder has no direct writes")
    with opened(tmp_path / "file") as descriptor:
        writer = BlockWriter(descriptor)
        writer.add(os.urandom(2 * BLOCK + 100))
        writer.flush()
        assert [is_cached(descriptor, at) for at in (0, BLOCK, 2 * BLOCK)] == [False, False, True]


def test_bytes_that_cannot_pass_the_cache_go_through_it(tmp_path: Path) -> None:
    """As on a file system that refuses direct writes, of memory that does not lie at a page."""
    content = os.urandom(BLOCK)
    with opened(tmp_path / "file") as descriptor:
        write_at(descriptor, 0, memoryview(b"x" + content)[1:])
    assert (tmp_path / "file").read_bytes() == content


def test_a_file_is_read_from_an_offset_to_its_end(tmp_path: Path) -> None:
    content = os.urandom(BLOCK + 100)
    (tmp_path / "file").write_bytes(content)
    into = bytearray(BLOCK)
    with opened(tmp_path / "file", os.O_RDONLY) as descriptor:
        assert read_at(descriptor, 50, into) == BLOCK
        assert into == content[50 : 50 + BLOCK]
        assert read_at(descriptor, BLOCK, memoryview(into)) == 100
        assert into[:100] == content[BLOCK:]
        assert read_at(descriptor, BLOCK + 100, into) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has files of the kernel")
def test_a_file_that_is_always_cached_is_read(tmp_path: Path) -> None:
    """A file of the kernel refuses the flag for the read, as an older system does."""
    into = bytearray(4096)
    with opened(Path("/proc/version"), os.O_RDONLY) as descriptor:
        size = read_at(descriptor, 0, into)
    assert bytes(into[:size]) == Path("/proc/version").read_bytes()


def test_a_python_that_passes_no_flags_reads_through_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that was built for an older glibc than that of the system."""
    content, preadv = os.urandom(4096), os.preadv

    def without_flags(descriptor: int, buffers: list[bytearray], at: int, flags: int = 0) -> int:
        if flags:
            raise NotImplementedError("preadv2: flags unavailable on this platform")
        return preadv(descriptor, buffers, at)

    monkeypatch.setattr(os, "preadv", without_flags)
    (tmp_path / "file").write_bytes(content)
    into = bytearray(4096)
    with opened(tmp_path / "file", os.O_RDONLY) as descriptor:
        assert read_at(descriptor, 0, into) == 4096
    assert into == content
