"""The view of the file system that a service has: a /tmp of its own, and folders that it may only read.

A caller outside of the service sees other files below such a /tmp than the daemon. A hook of the daemon sees
the same, and so does a runner of CI jobs whose own /tmp the daemon shares. So a path is judged only when
nothing is there, and only in a unit of claudemesh.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from claudemesh.protocol.errors import InvalidField

# The directory of the host that systemd mounts as the /tmp or /var/tmp of a service with PrivateTmp. It has
# the name of the unit.
_OWN: Final = re.compile(r"/systemd-private-[^/]*-claudemesh[^/]*/")
_MOUNTS: Final = Path("/proc/self/mountinfo")


def check_shared_view(path: Path, field: str) -> None:
    """Raise `InvalidField` for a path without a file, below a directory that only this service sees."""
    try:
        mounts = os.fsdecode(_MOUNTS.read_bytes())
    except OSError:
        return
    own = private_mount(mounts, os.path.realpath(path))
    if own is not None:
        text = (
            f"The daemon finds no {path}. It is a service with its own {own} (PrivateTmp=), and sees other "
            f"files there than its callers. Use a path outside of {own}."
        )
        raise InvalidField("private_directory", field, text)


def private_mount(mounts: str, path: str) -> str | None:
    """Return the mount point that holds a path, if it is a private one of a service of claudemesh.

    `mounts` is the content of /proc/self/mountinfo. Of several mounts at one place the last one is on top.
    """
    found, is_private = "", False
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 5:
            continue
        root, point = (_plain(field) for field in fields[3:5])
        is_above = path == point or path.startswith(point.rstrip("/") + "/")
        if is_above and len(point) >= len(found):
            found, is_private = point, _OWN.search(root) is not None
    return found if is_private else None


def read_only_remedy(folder: Path) -> str:
    """Return what to do about a folder that the daemon may only read."""
    return (
        f"the daemon may only read {folder}. For a service, `systemctl edit` its unit, add `[Service]` and "
        f"`ReadWritePaths={folder}`, and restart it. Otherwise mount the file system read-write"
    )


def _plain(field: str) -> str:
    """Undo the octal escapes of space, tab, newline and backslash."""
    for escaped, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(escaped, char)
    return field
