"""Search for a hook's executable. One that another user could have placed is refused."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from pathlib import Path

from claudemesh.runtime.files import UnsafeFile, check_private_dir

_WRITABLE_BY_OTHERS = 0o022


class HookNotRunnable(Exception):
    """The hook has an entry but does not run; the message says why and what to do."""


def find_hook(folder: Path, name: str, others: Collection[str] = ()) -> Path:
    """Return the file of a hook: its name alone, or with any one extension. `HookNotRunnable`.

    A file that is called like another hook of the manifest (`others`) is that one's.
    """
    try:
        check_private_dir(folder)
        # Names as they are in the directory: a file system that ignores case must not find a twin.
        entries = [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        raise HookNotRunnable(f"there is no {folder}: make it with mkdir -m 700 {folder}") from None
    except (UnsafeFile, OSError) as error:
        raise HookNotRunnable(str(error)) from error
    found = [entry for entry in entries if _is_called(entry, name) and (entry == name or entry not in others)]
    if name in found:
        found = [name]
    if not found:
        raise HookNotRunnable(f"there is no file {folder / name} (any extension will do)")
    if len(found) > 1:
        raise HookNotRunnable(f"{', '.join(sorted(found))} are all called {name}: keep one")
    path = folder / found[0]
    _check(path)
    return path


def _is_called(entry: str, name: str) -> bool:
    return entry == name or entry.rpartition(".")[0] == name


def _check(path: Path) -> None:
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise HookNotRunnable(f"{path} is a symbolic link: put the file itself there")
    if not stat.S_ISREG(found.st_mode):
        raise HookNotRunnable(f"{path} is not a regular file")
    if found.st_uid != os.geteuid():
        raise HookNotRunnable(f"{path} belongs to another user: run chown {os.geteuid()} {path}")
    if found.st_mode & _WRITABLE_BY_OTHERS:
        raise HookNotRunnable(f"others can change {path}: run chmod 700 {path}")
    if not found.st_mode & stat.S_IXUSR:
        raise HookNotRunnable(f"{path} is not executable: run chmod 700 {path}")
