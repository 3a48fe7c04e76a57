"""Start-up of a daemon: opens files and databases, and explains a failure to open one."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import orjson

from claudemesh.daemon.files.store import FilesStore
from claudemesh.daemon.hooks.manifest import NO_HOOKS, Manifest, load_manifest
from claudemesh.daemon.hooks.runs import HookRuns
from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.identity.pins import inviter_of
from claudemesh.daemon.inbox.store import InboxStore
from claudemesh.daemon.outbox.store import OutboxStore
from claudemesh.daemon.settings import DaemonSettings
from claudemesh.home.ended import load_ended
from claudemesh.home.environment import detect_environment
from claudemesh.home.membership import Membership
from claudemesh.home.paths import DaemonPaths
from claudemesh.home.recovered import finish_exchange
from claudemesh.home.remint import Remint
from claudemesh.protocol.errors import InvalidField
from claudemesh.protocol.features import Features
from claudemesh.protocol.wire import DEFAULT_BLOB_BYTES, DEFAULT_INLINE_BYTES
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.errors import SchemaTooNew, StorageCorrupt, StorageError, StorageFull
from claudemesh.runtime.exits import CANNOT_CREATE, CONFIGURATION, TEMPORARY, ExitWith
from claudemesh.runtime.files import FileLock, UnsafeFile, make_private_dir, read_own, remove
from claudemesh.runtime.lived import LivedClock, load_lived_clock, save_lived_clock
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.oserrors import cannot, local_cause
from claudemesh.runtime.peer import listener_on
from claudemesh.runtime.sidefiles import WriteFile
from claudemesh.runtime.sqlite import OnFailure
from claudemesh.runtime.sqlite_check import refuse_emptied

log = get_logger("daemon")


def take_lock(paths: DaemonPaths, stack: AsyncExitStack) -> None:
    """Take the mesh's lock until the stack closes. Raise `ExitWith` 73, which names the daemon that holds
    it."""
    try:
        make_private_dir(paths.home)
        make_private_dir(paths.root)
    except UnsafeFile as error:
        raise ExitWith(CANNOT_CREATE, "unsafe_directory", f"{error}.") from error
    except OSError as error:
        raise cannot("make the directory", error, paths.root) from error
    lock = FileLock(paths.lock)
    try:
        is_ours = lock.acquire()
    except OSError as error:
        raise cannot("open", error, paths.lock) from error
    if not is_ours:
        holder = _holder(paths.sock)
        raise ExitWith(
            CANNOT_CREATE,
            "already_running",
            f"A daemon for mesh {paths.slug} runs already{holder}: "
            "`claudemesh daemon status` shows it, `claudemesh daemon down` stops it.",
        )
    stack.callback(lock.release)


def finish_remint(paths: DaemonPaths) -> None:
    """Carry out an exchange of the member's files that a crash has interrupted (home/remint.py)."""
    try:
        old = Remint(paths).finish()
    except OSError as error:
        raise cannot("exchange the member's files in", error, paths.root) from error
    if old is not None:
        log.info("remint_finished", old_files=str(old))


def check_membership(paths: DaemonPaths) -> None:
    """Raise `ExitWith` 77 when the membership of this host has ended."""
    ended = load_ended(paths.ended)
    if ended is not None:
        raise ended.exit(paths.slug)


def load_directory(path: Path, membership: Membership, on_refused: Callable[[str], None]) -> Directory:
    """Load the pinned keys. Raise `ExitWith` 78 when the file is damaged: it is never replaced silently."""
    directory = Directory(path, membership.mesh_id, inviter_of(membership), on_refused)
    try:
        directory.load()
    except OSError as error:
        raise cannot("read", error, path) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ExitWith(
            CONFIGURATION,
            "malformed_file",
            f"{path} is damaged: it holds the pinned keys, so restore it from a backup, or "
            "move it away to trust the broker's list anew.",
        ) from error
    return directory


def load_hooks(path: Path, settings: DaemonSettings) -> Manifest:
    """Return the hooks in force. In CI there are none unless config.toml enables them."""
    place = detect_environment(os.environ)
    if settings.hooks_enabled is False or (settings.hooks_enabled is None and place == "ci"):
        return NO_HOOKS
    manifest = load_manifest(path, settings.hooks_default_timeout_s)
    if place == "ci" and manifest.hooks:
        log.warning("hooks_less_safe_here", place=place)
    return manifest


class HooksFile:
    """Part of a reload: reads hooks.toml, and puts its hooks in force."""

    def __init__(self, path: Path, runs: HookRuns) -> None:
        self._path = path
        self._runs = runs

    def prepare(self, settings: DaemonSettings) -> Callable[[], None]:
        """Return the commit of the hooks. Raise `ExitWith` 78 when hooks.toml is wrong."""
        manifest = load_hooks(self._path, settings)

        def commit() -> None:
            self._runs.put_in_force(manifest)

        return commit


def load_inline_bytes(path: Path) -> int:
    """Return the last negotiated body size in bytes, which applies until the broker announces another."""
    known = _last_features(path)
    return DEFAULT_INLINE_BYTES if known is None else known.inline_bytes


def load_blob_bytes(path: Path) -> int:
    """Return the last negotiated size of a blob in bytes. It applies until the broker announces another."""
    known = _last_features(path)
    return DEFAULT_BLOB_BYTES if known is None else known.blob_bytes


def _last_features(path: Path) -> Features | None:
    try:
        return Features.from_dict(orjson.loads(read_own(path)))
    except (OSError, UnsafeFile, orjson.JSONDecodeError, InvalidField):
        return None


def open_lived_clock(path: Path, clock: Clock, stack: AsyncExitStack) -> LivedClock:
    """Load the host-lived clock. Its position is written when the stack closes."""
    lived = load_lived_clock(path, clock)
    stack.callback(keep_lived_clock, path, lived)
    return lived


def keep_lived_clock(path: Path, lived: LivedClock) -> None:
    """Write the clock's position. A failure costs the next run at most the time since the last write."""
    try:
        save_lived_clock(path, lived)
    except OSError as error:
        log.warning("lived_clock_not_saved", path=str(path), error=str(error))


def _check_emptied(path: Path, paths: DaemonPaths) -> None:
    """Raise `StorageCorrupt` for a database that was used before and has no byte."""
    if path.exists():
        refuse_emptied(path, paths.schema_version)
    else:
        # A kill while the file is made leaves one without a byte, which is no damage. The number is written
        # again when the databases are open.
        remove(paths.schema_version)


async def open_outbox(paths: DaemonPaths, on_failure: OnFailure, stack: AsyncExitStack) -> OutboxStore:
    """Open outbox.db. Raise `ExitWith` 78 when it is damaged: unsent messages are never deleted."""
    path = paths.outbox_db
    try:
        if finish_exchange(path):
            log.info("recovery_finished", path=str(path))
        _check_emptied(path, paths)
        store = await OutboxStore.open(path, on_failure)
    except StorageCorrupt as error:
        raise ExitWith(
            CONFIGURATION,
            "outbox_corrupt",
            f"{path}: {error}. It may hold unsent messages, so nothing was changed: "
            "`claudemesh daemon recover` copies the readable ones to a new outbox.",
            next="claudemesh daemon recover",
        ) from error
    except OSError as error:
        raise cannot("finish the recovery of", error, path) from error
    except StorageError as error:
        raise cannot_open(path, error) from error
    stack.push_async_callback(store.close)
    return store


async def open_files(paths: DaemonPaths, on_failure: OnFailure, stack: AsyncExitStack) -> FilesStore:
    """Open files.db. Raise `ExitWith` 78 when it is damaged: files that wait are never deleted."""
    path = paths.files_db
    try:
        if finish_exchange(path):
            log.info("recovery_finished", path=str(path))
        _check_emptied(path, paths)
        store = await FilesStore.open(path, on_failure)
    except StorageCorrupt as error:
        raise ExitWith(
            CONFIGURATION,
            "files_corrupt",
            f"{path}: {error}. It may hold the keys of files that are not sent yet, so nothing was changed: "
            "`claudemesh daemon recover` copies the readable ones to a new file.",
            next="claudemesh daemon recover",
        ) from error
    except OSError as error:
        raise cannot("finish the recovery of", error, path) from error
    except StorageError as error:
        raise cannot_open(path, error) from error
    stack.push_async_callback(store.close)
    return store


async def open_inbox(
    path: Path,
    clock: Clock,
    on_failure: OnFailure,
    stack: AsyncExitStack,
    lived: LivedClock,
    write: WriteFile,
) -> InboxStore:
    """Open inbox.db. A damaged file is moved aside and replaced by an empty one."""
    try:
        store = await InboxStore.open(path, clock, on_failure, lived, write)
    except StorageError as error:
        raise cannot_open(path, error) from error
    stack.push_async_callback(store.close)
    return store


def cannot_open(path: Path, error: StorageError) -> ExitWith:
    """Return `ExitWith` 75 for storage that cannot be opened now: a later start may succeed."""
    if isinstance(error, SchemaTooNew):
        return ExitWith(CONFIGURATION, "schema_too_new", f"{path}: {error}.")
    cause = local_cause(error)
    if cause is not None:
        return ExitWith(cause.exit_code, cause.code, f"{error}.")
    if isinstance(error, StorageFull):
        return ExitWith(TEMPORARY, "disk_full", f"{error}.")
    return ExitWith(TEMPORARY, "cannot_open", f"{error}.")


def _holder(sock: Path) -> str:
    """Return words for the process that answers on the socket. The pid file may be from an earlier run."""
    peer = listener_on(sock)
    if peer is None:
        return ""
    return f" (pid {peer.pid})" if peer.pid else " (in another PID namespace)"
