"""Protection of private keys in memory: no core dump, no reading by other processes of the user."""

from __future__ import annotations

import resource
import sys

_PR_SET_DUMPABLE = 4


def protect_memory() -> None:
    """Forbid core dumps, and on Linux attaching by a debugger that is not root's.

    The core limit alone does not hold where the kernel pipes cores into a program such as systemd-coredump;
    a process that is not dumpable leaves no core there either.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        # Imported here: only processes that hold keys need it.
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
