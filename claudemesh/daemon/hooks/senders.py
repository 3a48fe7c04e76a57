"""The scope `dm:send:sender` of a hook: a send to the member that its event is from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.outbox.request import SendRequest


def is_sender(directory: Directory, request: SendRequest, event: Mapping[str, Any]) -> bool:
    """Whether a send goes to the member that sent the message of an event."""
    target = request.target
    peer = directory.by_name(target.name) if target.name else directory.by_key(target.ref or "")
    return peer is not None and peer.member_id == event.get("sender_member_id")
