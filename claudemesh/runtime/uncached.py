"""Reading and writing of large files past the page cache.

A large file that goes through the cache is copied once more, takes memory from other files, and queues up at
the disk ahead of the next commit of a database. Where the system or the file system cannot pass the cache,
bytes go through it. Every function blocks.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import sys
from collections.abc import Sequence
from typing import Final, TypeAlias

Bytes: TypeAlias = bytes | memoryview

BLOCK: Final = 1 << 20
# Direct writes begin and end at a multiple of this, in the file and in memory.
_ALIGNED: Final = 4096
_DIRECT: Final[int] = getattr(os, "O_DIRECT", 0)
# Read ahead as ever, and keep no page behind the read (Linux 6.14).
_DONTCACHE: Final = 0x80
_CANNOT: Final = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)
# Bytes of one direct write. The next commit of a database waits at the disk for one that is under way.
DIRECT_PIECE: Final = 256 << 10
# Bytes of one write through the cache. A larger one takes larger pieces of free memory. On a virtual machine
# they may be given back to the host, and then each byte costs several times as much.
_PIECE: Final = 128 << 10


class Buffer:
    """Memory for direct writes."""

    __slots__ = ("_map", "view")

    def __init__(self, size: int = BLOCK) -> None:
        self._map = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.view = memoryview(self._map)

    def fill(self, pieces: Sequence[Bytes]) -> memoryview:
        """Copy bytes into it, and return the part that holds them."""
        at = 0
        for piece in pieces:
            self.view[at : at + len(piece)] = piece
            at += len(piece)
        return self.view[:at]


class BlockWriter:
    """Writes to a descriptor from its position on, in blocks of 1 MiB that lie at multiples of 1 MiB.

    `end` is the end of what is in the file. The bytes behind the last block are held until `flush`.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer: Buffer | None = None
        self.end = os.lseek(descriptor, 0, os.SEEK_CUR)
        self._held = 0

    def add(self, data: bytes) -> None:
        """Write bytes behind the earlier ones. Raise `OSError`."""
        rest = memoryview(data)
        if self._buffer is None:
            self._buffer = Buffer()
        while rest:
            begin = self.end % BLOCK + self._held
            part = rest[: BLOCK - begin]
            self._buffer.view[begin : begin + len(part)] = part
            self._held += len(part)
            rest = rest[len(part) :]
            if begin + len(part) == BLOCK:
                self.flush()

    def flush(self) -> None:
        """Write what is held. Raise `OSError`: it is not held any more then."""
        held, self._held = self._held, 0
        if held and self._buffer is not None:
            begin = self.end % BLOCK
            write_at(self._descriptor, self.end, self._buffer.view[begin : begin + held])
            self.end += held


def write_at(descriptor: int, at: int, data: memoryview) -> None:
    """Write all bytes of a `Buffer`, or of a part of it, at an offset: directly where both are aligned."""
    aligned = len(data) - len(data) % _ALIGNED if at % _ALIGNED == 0 else 0
    written = _write_directly(descriptor, at, data[:aligned]) if aligned else 0
    rest, at = data[written:], at + written
    while rest:
        written = os.pwrite(descriptor, rest[:_PIECE], at)
        rest, at = rest[written:], at + written


def _write_directly(descriptor: int, at: int, data: memoryview) -> int:
    """Write bytes past the cache, and return how many: none where that cannot be done."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    done = 0
    try:
        if not _DIRECT:
            return 0
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | _DIRECT)
        while done < len(data):
            done += os.pwrite(descriptor, data[done : done + DIRECT_PIECE], at + done)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    finally:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
    return done


def read_at(descriptor: int, at: int, into: bytearray | memoryview) -> int:
    """Read bytes at an offset, and return how many: none at the end of the file. Raise `OSError`.

    They stay in the cache only if they were in it before.
    """
    if sys.platform == "linux":
        try:
            return os.preadv(descriptor, [into], at, _DONTCACHE)
        except NotImplementedError:
            # A Python that was built for a glibc before 2.26 passes no flags.
            pass
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
    return os.preadv(descriptor, [into], at)
