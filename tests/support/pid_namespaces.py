"""PID namespaces: commands that make one and enter one, as root or in a user namespace."""

from __future__ import annotations

import os

_IS_ROOT = os.geteuid() == 0

# A PID namespace of its own, with a /proc that shows it; in a user namespace where the caller is not root.
PID_NAMESPACE = [
    "unshare",
    *([] if _IS_ROOT else ["--user", "--map-current-user", "--keep-caps"]),
    *["--pid", "--fork", "--kill-child", "--mount-proc"],
]


def enter(pid: int) -> list[str]:
    """Return the prefix of a command that runs in the namespaces of a process, as `docker exec` does."""
    user = [] if _IS_ROOT else ["--user", "--preserve-credentials"]
    return ["nsenter", "--target", str(pid), *user, "--pid", "--mount"]
