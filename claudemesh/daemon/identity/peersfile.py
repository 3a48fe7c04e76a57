"""The directory on disk: peers.json, and peers.changes with the changes since it was written.

A mesh may have tens of thousands of members, of which one changes at a time. So a change is appended to
peers.changes. When that file is as large as peers.json, peers.json is rewritten.

Crash story: each line of peers.changes names the copy of peers.json that it belongs to, and the version of
the list after the change. Lines of another copy are ignored: they are older than peers.json. A last line
that was cut short is ignored too. The version is that of the line before, and the daemon asks the broker
for the changes since. So a crash, a lost line or an old copy of both files costs one request.
"""

from __future__ import annotations

import secrets
import select
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

import orjson
from msgspec import Struct

from claudemesh.runtime.files import append_private, read_private, remove, write_atomic
from claudemesh.runtime.logs import get_logger

log = get_logger("directory")

# Bytes of changes below which peers.json is not rewritten, however small it is.
APPEND_AT_LEAST: Final = 65_536
_LARGEST: Final = 256 << 20
# Entries that are formatted without a pause.
_AT_ONCE: Final = 64


class Kept(Struct, frozen=True):
    """The directory as read from disk: entries in the order of writing, and the version of the list if
    known."""

    entries: tuple[dict[str, Any], ...]
    version: str | None


class PeersFile:
    """Reads both files at the start, and writes changes."""

    def __init__(self, path: Path, *, append_at_least: int = APPEND_AT_LEAST) -> None:
        """Changes are appended up to the size of peers.json, or up to `append_at_least` bytes if that is
        more."""
        self._append_at_least = append_at_least
        self._path = path
        self._changes = path.with_suffix(".changes")
        # The copy of peers.json that lines belong to. None: peers.json must be written first.
        self._copy: str | None = None
        self._copy_bytes = 0
        self._end = 0

    @property
    def is_new(self) -> bool:
        """Whether the next write writes all members."""
        return self._copy is None

    def load(self) -> Kept:
        """Read both files; without them the directory is empty. Raise `ValueError` when peers.json is
        damaged."""
        try:
            raw = read_private(self._path, limit=_LARGEST)
        except FileNotFoundError:
            return Kept((), None)
        data = orjson.loads(raw)
        entries, version, copy = list(data["peers"]), data.get("version"), data.get("copy")
        if isinstance(copy, str):
            for line in self._lines(copy):
                entries += line["peers"]
                version = line["version"]
            self._copy, self._copy_bytes = copy, len(raw)
        return Kept(tuple(entries), version if isinstance(version, str) else None)

    def write(
        self,
        version: str | None,
        changed: Iterable[dict[str, Any]],
        everything: Iterable[dict[str, Any]] | None,
    ) -> bool:
        """Write the entries that changed since the last successful write. Raise `OSError`, which names the
        file. In a thread it gives the interpreter back every few entries.

        Without `everything`, a file that is to be written as a whole stays as it is, and the result is False.
        """
        if self._copy is not None:
            line = _document({"copy": self._copy, "version": version}, changed) + b"\n"
            if self._end + len(line) <= max(self._copy_bytes, self._append_at_least):
                append_private(self._changes, self._end, line)
                self._end += len(line)
                return True
        if everything is None:
            return False
        copy = secrets.token_hex(8)
        raw = _document({"schema_version": 1, "copy": copy, "version": version}, everything)
        write_atomic(self._path, raw)
        self._copy, self._copy_bytes, self._end = copy, len(raw), 0
        remove(self._changes)
        return True

    def _lines(self, copy: str) -> Iterable[dict[str, Any]]:
        try:
            raw = read_private(self._changes, limit=_LARGEST)
        except FileNotFoundError:
            return
        for text in raw.splitlines(keepends=True):
            line = _line(text)
            if line is None or line["copy"] != copy:
                # The next write begins here and overwrites the rest.
                log.warning("directory_changes_ignored", path=str(self._changes), bytes=len(raw) - self._end)
                return
            self._end += len(text)
            yield line


def _document(head: Mapping[str, Any], peers: Iterable[dict[str, Any]]) -> bytes:
    """Return a JSON object with the fields of `head` and then the entries, written in pieces."""
    left, pieces = iter(peers), list[bytes]()
    while piece := list(islice(left, _AT_ONCE)):
        pieces.append(orjson.dumps(piece)[1:-1])
        # Gives the interpreter to the event loop, if that waits for it. `time.sleep` needs a clock, and fails
        # under a library that sets the clocks of a process.
        select.select((), (), (), 0)
    return orjson.dumps(head)[:-1] + b',"peers":[' + b",".join(pieces) + b"]}"


def _line(text: bytes) -> dict[str, Any] | None:
    """Return a line that is complete JSON, else None."""
    try:
        line = orjson.loads(text) if text.endswith(b"\n") else None
    except ValueError:
        return None
    if not isinstance(line, dict) or not isinstance(line.get("copy"), str):
        return None
    return line if isinstance(line.get("peers"), list) and "version" in line else None
