"""Recognition of hooks on the socket by their ancestors, which a process cannot choose."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

_DEEPEST = 64


def descends_from(pid: int, ancestors: Collection[int], proc: Path = Path("/proc")) -> bool:
    """Tell whether a process runs below one of these. One that is gone already cannot be told apart: True."""
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
