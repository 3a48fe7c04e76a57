"""Processes by pid and start time, as /proc of Linux shows them."""

from __future__ import annotations

from pathlib import Path

from claudemesh.daemon.sessions.state import ProcessMark

_PROC = Path("/proc")
# Places of fields of /proc/PID/stat, counted behind the name of the program.
_STATE, _START = 0, 19


def mark(pid: int) -> ProcessMark:
    """Return a process that runs now. Its start time is None where this host does not show it."""
    return ProcessMark(pid, _started(pid))


def is_running(process: ProcessMark) -> bool:
    """Whether a process still runs. True for one whose start time is not known."""
    return process.started is None or _started(process.pid) == process.started


def _started(pid: int) -> int | None:
    try:
        fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[_STATE] == b"Z" else int(fields[_START])
