"""Exchange of a damaged database for a recovered one, and the note that an inbox is to be rebuilt.

Crash story: the recovered file gets its name `….recovered` when it is complete and on the disk. Then the
damaged file is moved aside, which decides the exchange, and the recovered one takes its place. A kill before
the decision leaves the damaged file, which the daemon still refuses. A kill after it is finished by the next
start, before the database is opened, so no start finds the name free and begins with an empty file.
"""

from __future__ import annotations

from pathlib import Path

from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.files import remove, sync_dir, write_atomic

# Files that belong to a database. A write-ahead log beside another database would be applied to it.
_SIDES = ("-wal", "-shm", "-journal")


def rebuild_path(path: Path) -> Path:
    """Return the name of the note that an inbox is to be filled from the broker's history."""
    return path.with_name(f"{path.name}.rebuild")


def begin_rebuild(path: Path, now_ms: int) -> Path:
    """Note that an inbox is to be rebuilt, then move the file aside if it is there; return its new name.

    The note is on the disk before the file is moved.
    """
    write_atomic(rebuild_path(path), b"")
    failpoint("rebuild.after_note")
    moved = path.with_name(f"{path.name}.corrupt-{now_ms}")
    for side in ("", *_SIDES):
        there = path.with_name(path.name + side)
        if there.exists():
            there.rename(moved.with_name(moved.name + side))
    sync_dir(path.parent)
    failpoint("rebuild.after_aside")
    return moved


def recovered_path(path: Path) -> Path:
    """Return the name under which a complete recovered database waits to take the place of another."""
    return path.with_name(f"{path.name}.recovered")


def exchange(path: Path, aside: str) -> Path:
    """Put the recovered file in the place of a damaged one; return where the damaged one was moved."""
    moved = path.with_name(f"{path.name}.{aside}")
    path.rename(moved)
    sync_dir(path.parent)
    failpoint("recover.after_aside")
    finish_exchange(path)
    return moved


def finish_exchange(path: Path) -> bool:
    """Finish an exchange that was decided. Return whether there was one."""
    ready = recovered_path(path)
    if path.exists() or not ready.exists():
        return False
    kept = sorted(path.parent.glob(f"{path.name}.damaged-*[0-9]"))
    for side in _SIDES:
        beside = path.with_name(path.name + side)
        if beside.exists() and kept:
            beside.rename(kept[-1].with_name(kept[-1].name + side))
        remove(beside)
    sync_dir(path.parent)
    failpoint("recover.after_sides")
    ready.rename(path)
    remove(path.with_name(f"{path.name}.suspect"))
    sync_dir(path.parent)
    failpoint("recover.after_exchange")
    return True
