"""Close codes of the broker that end the daemon, each with its exit (protocol.md, Close codes)."""

from __future__ import annotations

from collections.abc import Mapping

from claudemesh.protocol.errors import NOT_A_MEMBER, CloseCode, parse_close_reason
from claudemesh.runtime.exits import PERMISSION, TEMPORARY, ExitWith

_EXITS: Mapping[int, tuple[int, str, str]] = {
    CloseCode.UNAUTHENTICATED: (
        PERMISSION,
        "unauthenticated",
        "The broker does not know this member's key: join the mesh again with a new invite.",
    ),
    CloseCode.REVOKED: (
        PERMISSION,
        "revoked",
        "This member was revoked: ask an owner of the mesh for a new invite.",
    ),
    CloseCode.REPLACED: (
        TEMPORARY,
        "replaced_by_newer_connection",
        "Another daemon connected with this host's identity: see that only one of the two runs.",
    ),
    CloseCode.ALREADY_CONNECTED: (
        TEMPORARY,
        "member_already_connected",
        "Another daemon is connected with this host's identity: stop it first.",
    ),
}


def exit_after_close(code: int) -> ExitWith | None:
    """Return the exit that a close code demands, or None when the daemon reconnects."""
    found = _EXITS.get(code)
    return None if found is None else ExitWith(*found)


def is_unknown_member(code: int, reason: str) -> bool:
    """Whether a close says that the broker has no member with this host's key."""
    return code == CloseCode.UNAUTHENTICATED and parse_close_reason(reason).get("kind") == NOT_A_MEMBER
