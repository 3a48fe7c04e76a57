"""Who sends."""

from __future__ import annotations

from dataclasses import dataclass

from claudemesh.broker.limiter.base import Allowance


@dataclass(frozen=True, slots=True)
class Sender:
    """A member, as its connection's handshake established it; nothing of it comes from a frame."""

    mesh_id: str
    member_id: str
    name: str
    pubkey: str
    allowance: Allowance
