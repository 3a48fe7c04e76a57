"""Search for a hook's executable. A file that another user could have written is refused."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from pathlib import Path

from claudemesh.runtime.files import UnsafeFile, check_private_dir

_WRITABLE_BY_OTHERS = 0o022


class HookNotRunnable(Exception):
    """A hook has an entry but cannot run. The message states the cause and the remedy."""


def find_hook(folder: Path, name: str, others: Collection[str] = ()) -> Path:
    """Return the file of a hook: its name, or its name and an extension. Raise `HookNotRunnable`.

    A file with the name of another hook of the manifest (`others`) belongs to that hook.
    """
    try:
        check_private_dir(folder)
        # Exact names from the listing: a file system that ignores case must not match another name.
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
