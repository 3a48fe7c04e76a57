"""Deletion of what a host keeps of a mesh: all of it after leaving, or its state alone.

Crash story: ended.json is on the disk before the first file of a membership is deleted, and membership.json
and ended.json go last. So a host that is killed in between is still recognised as a former member, its daemon
does not start, and the next `leave` deletes the rest. A reset deletes files of which each may be missing.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

from claudemesh.client.errors import ClientError
from claudemesh.home.ended import Ended, save_ended
from claudemesh.home.paths import DaemonPaths
from claudemesh.home.recovered import rebuild_path, recovered_path
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.files import FileLock, remove, sync_dir

_WAITING = "SELECT count(*) FROM outbox WHERE status IN ('pending', 'inflight', 'dead')"
_RECEIVED = "SELECT count(*) FROM inbox"
_UNSHARED = "SELECT count(*) FROM shared WHERE state IN ('uploading', 'announcing', 'attaching')"
_END_S, _POLL_S = 20.0, 0.02
_SIDES = ("", "-wal", "-shm", "-journal")


def received(paths: DaemonPaths) -> str:
    """Return words for the messages that the inbox holds."""
    count = _count(paths.inbox_db, _RECEIVED)
    return (
        "all received messages (the inbox cannot be read)" if count is None else f"{count} received messages"
    )


def undelivered(paths: DaemonPaths) -> str:
    """Return sentences about what has not left this host, each with a space before it."""
    waiting, unshared = _count(paths.outbox_db, _WAITING), _count(paths.files_db, _UNSHARED)
    text = f" {waiting} accepted sends are not delivered, and are lost." if waiting else ""
    if unshared:
        text += f" {unshared} files or long texts are not shared yet, and are lost."
    if waiting is None or unshared is None:
        text += " The list of sends cannot be read whole: those that are not delivered are lost."
    return text


def wipe_all(paths: DaemonPaths) -> None:
    """Delete everything of a mesh. `ClientError` while a daemon runs. After a crash it is called again."""
    if not paths.root.exists():
        return
    with _without_daemon(paths):
        if not paths.ended.exists():
            save_ended(paths.ended, Ended("left"))
        last = (paths.lock, paths.membership, paths.ended)
        for entry in sorted(paths.root.iterdir()):
            if entry not in last:
                _delete(entry)
                failpoint("wipe.after_file")
        sync_dir(paths.root)
        for path in (paths.membership, paths.ended, paths.lock):
            remove(path)
            sync_dir(paths.root)
            failpoint("wipe.after_membership")
    paths.root.rmdir()


def wipe_state(paths: DaemonPaths) -> None:
    """Delete queues, inbox, shared files, pins and caches; keep keys, membership, configuration, hooks and
    positions."""
    with _without_daemon(paths):
        databases = (paths.outbox_db, paths.inbox_db, paths.files_db)
        files = [path.with_name(path.name + side) for path in databases for side in _SIDES]
        files += [
            recovered_path(paths.outbox_db),
            rebuild_path(paths.inbox_db),
            paths.peers,
            paths.peers.with_suffix(".changes"),
            paths.topics,
        ]
        files += [paths.broker_features, paths.topic_subscriptions, paths.schema_version]
        for path in files:
            remove(path)
            failpoint("reset.after_file")
        for folder in (paths.spool, paths.texts):
            if folder.exists():
                _delete(folder)
        sync_dir(paths.root)


@contextmanager
def _without_daemon(paths: DaemonPaths) -> Generator[None]:
    """Hold the lock of the daemon, so that none starts meanwhile. One that ends just now is waited for."""
    lock, deadline = FileLock(paths.lock), time.monotonic() + _END_S
    while not lock.acquire():
        if time.monotonic() < deadline:
            time.sleep(_POLL_S)
            continue
        raise ClientError(
            "already_running",
            f"A daemon for mesh {paths.slug} runs, so nothing was deleted.",
            next=f"claudemesh daemon down --mesh {paths.slug}",
        )
    try:
        yield
    finally:
        lock.release()


def _delete(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        remove(entry)


def _count(path: Path, query: str) -> int | None:
    """Return a count of a database: 0 for one that is missing, None for one that cannot be read."""
    if not path.exists():
        return 0
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            return int(database.execute(query).fetchone()[0])
    except sqlite3.Error:
        return None
