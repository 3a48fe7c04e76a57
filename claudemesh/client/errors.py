"""Errors between a client and a daemon or broker; each knows its exit code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from claudemesh.runtime.exits import (
    CONFIGURATION,
    INTERNAL,
    PERMISSION,
    TEMPORARY,
    UNAVAILABLE,
    USAGE,
)

_EXITS = {
    401: PERMISSION,
    403: PERMISSION,
    421: CONFIGURATION,
    429: TEMPORARY,
    500: INTERNAL,
    503: TEMPORARY,
    507: TEMPORARY,
}


class ClientError(Exception):
    """A failure that the user is told in one sentence; `code` is stable."""

    exit_code = UNAVAILABLE

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def as_body(self) -> dict[str, Any]:
        """Return the error as programs read it."""
        return {"error": self.code, "message": self.message}


class DaemonNotRunning(ClientError):
    """No process answers on the socket."""

    def __init__(self, slug: str) -> None:
        super().__init__(
            "daemon_not_running",
            f"No daemon runs for mesh {slug}: start it with `claudemesh daemon up -d`.",
        )


class WrongHome(ClientError):
    """The files under CLAUDEMESH_HOME do not say which mesh is meant."""

    exit_code = CONFIGURATION


class WrongAddress(ClientError):
    """The server at a broker's address is not to be asked there."""

    exit_code = CONFIGURATION


class ApiError(ClientError):
    """A daemon or broker answered with an error."""

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        super().__init__(str(body.get("error", "error")), str(body.get("message", f"HTTP {status}")))
        self.status = status
        self.body = dict(body)
        self.exit_code = _EXITS.get(status, USAGE if status < 500 else UNAVAILABLE)

    def as_body(self) -> dict[str, Any]:
        """Return the whole answer."""
        return self.body
