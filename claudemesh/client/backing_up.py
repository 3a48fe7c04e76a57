"""Backup and restore of this host's membership: its files, read and written as a whole.

Crash story of a restore: the files are written and synced in a folder of their own, which is then renamed to
the folder of the mesh. A crash before the rename leaves the host as it was, and the folder `restore-…` in
the home. With a folder in the way, that one is renamed aside first; a crash in between leaves both.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from claudemesh.home.backup import MOST_BYTES, MOST_FILES, NAMES, Backup, is_allowed
from claudemesh.home.host_file import accept_host
from claudemesh.home.keyring import Keyring
from claudemesh.home.membership import load_membership
from claudemesh.home.paths import DaemonPaths
from claudemesh.runtime.clock import iso_ms
from claudemesh.runtime.exits import CANNOT_CREATE, CONFIGURATION, ExitWith
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.files import (
    FileLock,
    UnsafeFile,
    make_private_dir,
    read_own,
    sync_dir,
    write_atomic,
)

_PINS = ("peers.json", "peers.changes")


def read_membership(paths: DaemonPaths) -> Backup:
    """Return the files of a mesh for a backup. `ExitWith` when keys or membership cannot be read."""
    load_membership(paths.membership)
    Keyring.load(paths.keypair)
    names = [*NAMES, *_hooks(paths)]
    files = {name: data for name in names if (data := _read(paths.root / name)) is not None}
    # A daemon may replace both files meanwhile, and they belong together.
    while (pins := _pins(paths)) != {name: files[name] for name in _PINS if name in files}:
        files = {name: data for name, data in files.items() if name not in _PINS} | pins
    if sum(map(len, files.values())) > MOST_BYTES:
        raise ExitWith(CONFIGURATION, "backup_too_large", f"The files have more than {MOST_BYTES} bytes.")
    if len(files) > MOST_FILES:
        text = f"The folder {paths.hooks} brings the files to more than {MOST_FILES}. Move some away."
        raise ExitWith(CONFIGURATION, "backup_too_large", text)
    return Backup(paths.slug, iso_ms(time.time_ns() // 1_000_000), files)


def write_membership(
    backup: Backup, paths: DaemonPaths, override_of: Callable[[Path], str | None], *, replace: bool
) -> Path | None:
    """Write the files of a backup; return where the files were moved that stood there, None if none did.

    The host becomes the one to which the files belong. `ExitWith` while a daemon runs, and for a folder that
    is there already unless `replace`. `override_of` returns the id of this host that a config.toml gives.
    """
    folder = paths.home / f"restore-{secrets.token_hex(6)}"
    lock = _locked(paths) if paths.root.exists() else None
    try:
        if paths.membership.exists() and not replace:
            text = f"This host is a member of mesh {paths.slug} already. Nothing was written."
            raise ExitWith(CANNOT_CREATE, "already_member", text, next="claudemesh daemon restore --replace")
        make_private_dir(folder)
        _fill(folder, backup, override_of)
        make_private_dir(paths.root.parent)
        failpoint("restore_backup.after_files")
        moved = _move_aside(paths) if paths.root.exists() else None
        failpoint("restore_backup.after_aside")
        folder.rename(paths.root)
        sync_dir(paths.root.parent)
        sync_dir(paths.home)
        return moved
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            lock.release()


def _fill(folder: Path, backup: Backup, override_of: Callable[[Path], str | None]) -> None:
    for name, data in backup.files.items():
        path = folder / name
        is_hook = path.parent != folder
        if is_hook:
            make_private_dir(path.parent)
        write_atomic(path, data, 0o700 if is_hook and path.suffix != ".toml" else 0o600)
    # A file that cannot be read must not be found by the next start.
    load_membership(folder / "membership.json")
    Keyring.load(folder / "keypair.json")
    accept_host(folder / "host_fingerprint.json", override_of(folder / "config.toml"))
    sync_dir(folder)


def _locked(paths: DaemonPaths) -> FileLock:
    lock = FileLock(paths.lock)
    if not lock.acquire():
        text = f"The daemon of mesh {paths.slug} runs. Stop it first; nothing was written."
        raise ExitWith(CANNOT_CREATE, "already_running", text, next="claudemesh daemon down")
    return lock


def _move_aside(paths: DaemonPaths) -> Path:
    moved = paths.home / f"before-restore-{paths.slug}-{secrets.token_hex(4)}"
    paths.root.rename(moved)
    sync_dir(paths.root.parent)
    sync_dir(paths.home)
    return moved


def left_out(paths: DaemonPaths) -> list[str]:
    """Return what a backup does not hold of the folder of the hooks: subfolders, and files of other names."""
    kept = _hooks(paths)
    return [name for name in _in_hooks(paths) if name not in kept]


def _hooks(paths: DaemonPaths) -> list[str]:
    return [name for name in _in_hooks(paths) if is_allowed(name) and (paths.root / name).is_file()]


def _in_hooks(paths: DaemonPaths) -> list[str]:
    if not paths.hooks.is_dir():
        return []
    return [f"hooks/{path.name}" for path in sorted(paths.hooks.iterdir())]


def _pins(paths: DaemonPaths) -> dict[str, bytes]:
    found = {name: _read(paths.root / name) for name in _PINS}
    return {name: data for name, data in found.items() if data is not None}


def _read(path: Path) -> bytes | None:
    try:
        return read_own(path, MOST_BYTES)
    except FileNotFoundError:
        return None
    except UnsafeFile as error:
        raise ExitWith(CONFIGURATION, "unsafe_file", str(error)) from error
