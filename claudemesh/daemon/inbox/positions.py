"""Inbox positions (seq): they keep growing even when inbox.db is replaced by a new or an older file.

A reader resumes by the seq of the last message it has seen, so a new inbox.db that began at 1 again would
hide its first messages from that reader. The file `inbox_position` holds a number that is ahead of every
seq given out; inbox.db holds it too. A database that is new, or older than the file, continues after that
number.

Crash story: the file is written before the transaction that uses the positions it reserves. A crash in
between leaves the file ahead of the database, which skips at most one block of numbers at the next start.
When both are restored from the same backup, the seq goes back with them, which cannot be detected here.

A new database leaves the numbers below its first one free. Messages that are read back from the history take
them, oldest first, so a program that asks for what follows the last message it has seen is not given them.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

from claudemesh.runtime.files import UnsafeFile, read_private, write_atomic
from claudemesh.runtime.queries import load_queries
from claudemesh.runtime.sidefiles import WriteFile

_Q = load_queries("claudemesh.daemon.sql", "inbox.sql")

BLOCK = 1000


class Positions:
    """The reserved positions of one inbox."""

    def __init__(self, path: Path, write: WriteFile) -> None:
        """`write` writes the file under its name, now or as soon as that can be done."""
        self._path = path
        self._write = write
        self._last = 0
        self._reserved = 0
        # The least seq that no message read back from the history may take.
        self._first = 1
        # Received and opened messages reserve at the same time; the number must not go back.
        self._lock = asyncio.Lock()

    def open(self, raw: sqlite3.Connection, salvaged: int) -> None:
        """Set the next seq behind the last one given out. `salvaged` is the last seq of a damaged file, 0
        if unknown."""
        reserved: int = raw.execute(_Q["positions_reserved"]).fetchone()[0]
        given = max(_read(self._path), salvaged)
        last: int = raw.execute(_Q["positions_last"]).fetchone()[0]
        if given > reserved and given > last:
            raw.execute(_Q["positions_clear"])
            raw.execute(_Q["positions_skip"], (given,))
            last = given
        self._last = last
        self._reserved = reserved if given <= reserved else last
        found = raw.execute(_Q["positions_first"]).fetchone()
        self._first = last + 1 if found is None else found[0]

    async def reserve(self, count: int) -> int | None:
        """Reserve `count` positions before their transaction. Return the number to `note` in it, or None."""
        async with self._lock:
            if self._last + count <= self._reserved:
                return None
            ahead = self._last + count + BLOCK
            text = b"%d\n" % ahead
            written = await asyncio.to_thread(_try, lambda: write_atomic(self._path, text))
            if isinstance(written, OSError):
                # `on_write` has reported the error and tries again. Messages are stored all the same.
                self._write(
                    self._path.name, lambda: write_atomic(self._path, b"%d\n" % max(ahead, self._reserved))
                )
                return None
            self._reserved = ahead
            return ahead

    def note(self, raw: sqlite3.Connection, reserved: int) -> None:
        """Write the number to the database, in the transaction that uses the positions."""
        raw.execute(_Q["positions_note"], (reserved,))

    def below(self, raw: sqlite3.Connection) -> int | None:
        """Return the number for the next message that is read back from the history.

        None: no number is free there, and the message takes the next one of all.
        """
        seq: int = raw.execute(_Q["positions_below"], (self._first,)).fetchone()[0] + 1
        return seq if seq < self._first else None

    def used(self, seq: int) -> None:
        """Note that a committed row has this seq."""
        self._last = max(self._last, seq)


def salvage_last(path: Path) -> int:
    """Return the last seq of a damaged inbox.db if that can still be read, else 0."""
    try:
        raw = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            return int(raw.execute(_Q["positions_last"]).fetchone()[0])
        finally:
            raw.close()
    except (sqlite3.Error, TypeError, ValueError):
        return 0


def _try(write: Callable[[], None]) -> OSError | None:
    try:
        write()
    except OSError as error:
        return error
    return None


def _read(path: Path) -> int:
    try:
        return max(0, int(read_private(path)))
    except (OSError, UnsafeFile, ValueError):
        return 0
