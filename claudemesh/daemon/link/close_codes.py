"""Close codes of the broker that end the daemon, each with its exit (docs/spec/protocol.md, Close codes)."""

from __future__ import annotations

from collections.abc import Mapping

from claudemesh.protocol.errors import (
    KEY_ROTATED_OUT,
    LEFT,
    NOT_A_MEMBER,
    WRONG_ADDRESS,
    CloseCode,
    parse_close_reason,
)
from claudemesh.runtime.exits import CONFIGURATION, PERMISSION, TEMPORARY, ExitWith
from claudemesh.runtime.terminal import safe

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


def exit_after_close(code: int, reason: str, url: str) -> ExitWith | None:
    """Return the exit that the broker's close demands, or None when the daemon reconnects."""
    told = parse_close_reason(reason) if code == CloseCode.UNAUTHENTICATED else {}
    if told.get("kind") == WRONG_ADDRESS:
        return _wrong_address(url, told.get("detail", ""))
    if told.get("kind") == LEFT:
        return ExitWith(PERMISSION, LEFT, "This host has left the mesh.")
    found = _EXITS.get(code)
    return None if found is None else ExitWith(*found)


def _wrong_address(url: str, known: str) -> ExitWith:
    return ExitWith(
        CONFIGURATION,
        WRONG_ADDRESS,
        f"This host dials its broker at {url}, but the broker there knows itself as "
        f"{safe(known) or 'no address'}. If that is the same broker, either let this host dial that address "
        f"(`claudemesh daemon set-broker URL`), or give the broker this one too (`broker up --public-url "
        f"{url}`, beside the others). If it is another one, something on the way passes connections on: "
        "nothing was acknowledged to it.",
    )


def in_words(code: int, reason: str) -> str:
    """Return the end of a link as people read it. Without a close code of the broker it is so already."""
    if not code:
        return reason
    told = parse_close_reason(reason)
    kind, detail = told.get("kind", ""), told.get("detail", "")
    text = f"{detail.rstrip('.')} ({kind})" if kind and detail else kind or detail or reason
    return f"the broker closed the link: {safe(text) or f'close code {code}'}"


def is_unknown_member(code: int, reason: str) -> bool:
    """Whether a close says that the broker has no member with this host's key."""
    return code == CloseCode.UNAUTHENTICATED and parse_close_reason(reason).get("kind") == NOT_A_MEMBER


def is_rotated_out(code: int, reason: str) -> bool:
    """Whether a close says that the broker knows a newer key of this host's member."""
    return code == CloseCode.UNAUTHENTICATED and parse_close_reason(reason).get("kind") == KEY_ROTATED_OUT
