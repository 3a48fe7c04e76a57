"""Errors between a client and a daemon or broker; each knows its exit code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """A failure: a stable code and a sentence for people.

    Where they help it has names that resemble a wrong one, and a command.
    """

    exit_code = UNAVAILABLE

    def __init__(
        self, code: str, message: str, *, next: str | None = None, near: Sequence[str] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.next = next
        self.near = near

    def as_body(self) -> dict[str, Any]:
        """Return the error as programs read it."""
        body = {"error": self.code, "message": self.message}
        helps = {"near": self.near, "next": self.next}
        return body | {name: value for name, value in helps.items() if value is not None}


class DaemonNotRunning(ClientError):
    """No daemon answers on the socket. It may be starting when `may_start`."""

    may_start = True

    def __init__(self, slug: str) -> None:
        super().__init__(
            "daemon_not_running",
            f"No daemon runs for mesh {slug}.",
            next=f"claudemesh daemon up -d --mesh {slug}",
        )


class MembershipEnded(DaemonNotRunning):
    """No daemon answers on the socket, and none starts: the membership of this host has ended."""

    exit_code = PERMISSION
    may_start = False

    def __init__(self, code: str, message: str, *, next: str | None) -> None:
        ClientError.__init__(self, code, message, next=next)


class WrongUse(ClientError):
    """An argument is wrong or missing."""

    exit_code = USAGE


class WrongHome(ClientError):
    """The files under CLAUDEMESH_HOME do not say which mesh is meant."""

    exit_code = CONFIGURATION


class WrongAddress(ClientError):
    """The broker does not serve the address at which it was asked."""

    exit_code = CONFIGURATION


class UntrustedCertificate(ClientError):
    """The certificate of the broker was refused. With `needs_authority`, one of your own may be missing."""

    exit_code = CONFIGURATION

    def __init__(self, code: str, message: str, *, needs_authority: bool = False) -> None:
        super().__init__(code, message)
        self.needs_authority = needs_authority


class Unsupported(ClientError):
    """The daemon is of another version than this command, and does not have the route that it needs."""

    exit_code = CONFIGURATION

    def __init__(self, daemon_version: str, own_version: str) -> None:
        super().__init__(
            "unsupported",
            f"The daemon runs version {daemon_version}, which cannot do this. This command is version "
            f"{own_version}. A restart makes the daemon run this version.",
            next="claudemesh daemon restart",
        )
        self.versions = {"daemon_version": daemon_version, "version": own_version}

    def as_body(self) -> dict[str, Any]:
        """Return the error with both versions."""
        return super().as_body() | self.versions


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
