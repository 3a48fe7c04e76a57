"""Exit codes (sysexits) and their exception (docs/spec/daemon.md, Starting, stopping, failing)."""

from __future__ import annotations

OK = 0
USAGE = 64
UNAVAILABLE = 69
INTERNAL = 70
CANNOT_CREATE = 73
TEMPORARY = 75
PERMISSION = 77
CONFIGURATION = 78
INTERRUPTED = 130


class ExitWith(Exception):
    """The end of a process: exit code, stable error code, a message, and a command that helps."""

    def __init__(self, code: int, error: str, message: str, *, next: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.error = error
        self.message = message
        self.next = next
