"""Trust in folders and sockets: only this user and root may change or replace them.

A folder is trusted when this user owns it, no other user can write to it, and no other user can replace it:
every ancestor, and every symbolic link on the way, belongs to this user or to root and is not writable by
others unless it is sticky. An ancestor may be writable by root's group and by the user's private group (the
one numbered like the user).

A socket is trusted when this user owns it and no other user can replace it.

Standard library only, and few modules of it: the launcher and the fast path run this at each start. `sdk.py`,
which stands alone, has a copy of the functions that it needs; a test holds the two together.
"""

from __future__ import annotations

import errno
import os
import stat

_UID_MAP = "/proc/self/uid_map"
_OVERFLOW_UID = "/proc/sys/kernel/overflowuid"
_MAX_LINKS = 40


def distrust(folder: str) -> str | None:
    """Return the reason not to use a folder, as a sentence without its full stop, or None when it is safe.

    `OSError` when the folder or an ancestor cannot be looked at.
    """
    folder = os.path.abspath(folder)  # noqa: PTH100
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode):
        return f"{folder} is not a folder, or is a symbolic link: use the folder itself"
    if found.st_uid != os.geteuid():
        return (
            f"{folder} belongs to another user (uid {found.st_uid}): run this as that user, "
            "or use a folder of your own"
        )
    if found.st_mode & 0o022:
        return f"Other users can write to {folder}: run chmod 700 {folder}"
    return distrust_ancestors(folder)


def distrust_socket(path: str) -> str | None:
    """Return the reason for which another user could answer on a socket, in the same form, or None.

    `OSError` when the socket or an ancestor cannot be looked at.
    """
    path = os.path.abspath(path)  # noqa: PTH100
    reason = distrust_ancestors(path)
    if reason is not None:
        return reason
    found = os.lstat(path)
    if not stat.S_ISSOCK(found.st_mode):
        return f"{path} is not a socket, or is a symbolic link: use the socket itself"
    if found.st_uid != os.geteuid():
        return (
            f"{path} belongs to another user (uid {found.st_uid}), who would read what is sent: "
            "run this as that user, or set CLAUDEMESH_HOME to a folder of your own"
        )
    return None


def distrust_ancestors(path: str) -> str | None:
    """Return the reason for which another user could replace the file at a path, in the same form, or
    None."""
    for parent in _ancestors(path):
        found = os.lstat(parent)
        if found.st_uid not in (0, os.geteuid()) and not _is_unmapped(found.st_uid):
            return (
                f"{parent} belongs to another user (uid {found.st_uid}), who can replace {path}: "
                "use a folder below one of your own"
            )
        if not stat.S_ISLNK(found.st_mode) and not found.st_mode & stat.S_ISVTX and _others_can_write(found):
            return (
                f"Other users can write to {parent} and replace {path}: "
                f"run chmod go-w {parent}, or use a folder elsewhere"
            )
    return None


def _others_can_write(found: os.stat_result) -> bool:
    if found.st_mode & stat.S_IWOTH:
        return True
    private_group = found.st_gid == 0 or found.st_gid == os.geteuid() == os.getegid()
    return bool(found.st_mode & stat.S_IWGRP) and not private_group


def _ancestors(path: str) -> list[str]:
    """Return every folder and symbolic link on the way from the root to a path."""
    passed, here, links = ["/"], "/", 0
    names = path.split("/")[::-1]
    while names:
        name = names.pop()
        if name in ("", "."):
            continue
        if not names:
            break
        here = os.path.dirname(here) if name == ".." else os.path.join(here, name)  # noqa: PTH118, PTH120
        passed.append(here)
        if os.path.islink(here):  # noqa: PTH114
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            target = os.readlink(here)  # noqa: PTH115
            here = "/" if target.startswith("/") else os.path.dirname(here)  # noqa: PTH120
            names += target.split("/")[::-1]
    return passed


def _is_unmapped(uid: int) -> bool:
    """Return whether a uid stands for one that this user namespace does not map, as root's in a sandbox."""
    try:
        with open(_OVERFLOW_UID) as file:  # noqa: PTH123
            if uid != int(file.read()):
                return False
        with open(_UID_MAP) as file:  # noqa: PTH123
            return file.read().split() != ["0", "0", "4294967295"]
    except (OSError, ValueError):
        return False
