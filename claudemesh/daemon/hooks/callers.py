"""Recognition of hooks among the callers of the socket, by the ancestors of their process."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

_DEEPEST = 64


def descends_from(pid: int, ancestors: Collection[int], proc: Path = Path("/proc")) -> bool:
    """Whether a process descends from one of `ancestors`. True for a process that has ended: it may have."""
    for _ in range(_DEEPEST):
        if pid in ancestors:
            return True
        if pid <= 1:
            return False
        try:
            fields = (proc / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return True
        pid = int(fields[1])
    return False
