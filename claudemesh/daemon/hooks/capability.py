"""Capability tokens of hooks: bound to one event, to scopes, and to one run."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from claudemesh.daemon.hooks.loop_guard import LoopGuard
from claudemesh.daemon.hooks.manifest import DM_SENDER, REPLY
from claudemesh.daemon.outbox.request import SendRequest
from claudemesh.protocol.errors import ProtocolError

PREFIX = "cap_"
LIFETIME_S = 300.0


@dataclass(slots=True)
class Grant:
    """The rights of one running hook, and the number of calls it has made."""

    hook: str
    event: Mapping[str, Any]
    scopes: tuple[str, ...]
    expires_at: float
    loop_guard: LoopGuard = field(repr=False)
    is_sender: Callable[[SendRequest, Mapping[str, Any]], bool] = field(repr=False)
    count: Callable[[str, str], None] = field(repr=False)
    calls: list[str] = field(default_factory=list)

    def admit(self, request: SendRequest) -> SendRequest:
        """Return the send with its hop count. Raise `ProtocolError` 403 capability_scope or 429 hook_loop."""
        scope = next((scope for scope in self.scopes if self._covers(scope, request)), None)
        self.calls.append(scope or "denied")
        self.count(self.hook, scope or "denied")
        if scope is None:
            raise ProtocolError(
                "capability_scope",
                f"The hook {self.hook} may not send this: its scopes are {', '.join(self.scopes)}, "
                "for the event it was started by.",
            )
        return replace(request, **self.loop_guard.admit(self.event, request.meta))

    def _covers(self, scope: str, request: SendRequest) -> bool:
        target, topic = request.target, self.event.get("topic")
        to_sender = target.kind == "dm" and self.is_sender(request, self.event)
        to_topic = target.kind == "topic" and topic is not None and target.ref == topic
        if scope == REPLY:
            answers = request.reply_to_id == self.event.get("broker_message_id")
            return answers and (to_sender or (self.event.get("kind") == "topic" and to_topic))
        if scope == DM_SENDER:
            return to_sender
        return to_topic and scope == f"topic:{topic}:post"


class Capabilities:
    """The grants of running hooks, by a digest of their tokens."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._grants: dict[bytes, Grant] = {}

    def issue(self, grant: Grant) -> str:
        """Make a token for a grant."""
        token = PREFIX + secrets.token_urlsafe(32)
        self._grants[_digest(token)] = grant
        return token

    def revoke(self, token: str) -> None:
        """Revoke the token of a hook that has ended."""
        self._grants.pop(_digest(token), None)

    def find(self, token: str) -> Grant | None:
        """Return the grant of a token, or None for an unknown, revoked or expired token."""
        grant = self._grants.get(_digest(token))
        return grant if grant is not None and self._now() < grant.expires_at else None


def _digest(token: str) -> bytes:
    # Looked up by digest, so that the duration reveals nothing about a token.
    return hashlib.sha256(token.encode()).digest()
