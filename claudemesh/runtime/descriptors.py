"""Limit of open files and sockets of this process."""

from __future__ import annotations

import contextlib
import resource


def raise_descriptors(wanted: int) -> int:
    """Raise the soft limit to `wanted`, or as far as the hard one allows; return the soft limit in force.

    Many systems start a process with a soft limit of 1024 and a far higher hard limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= allowed:
        return wanted if soft == resource.RLIM_INFINITY else soft
    # Some systems enforce less than their hard limit.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
