"""The sender of a frame, as its connection has proven it."""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct

from claudemesh.broker.limiter.base import Allowance
from claudemesh.protocol.signing import verify_envelope


class Signed(NamedTuple):
    """The part of an envelope that its signature covers, and the signature."""

    part: bytes
    signature: bytes


class Sender(Struct, frozen=True):
    """A member, as its connection's handshake established it; nothing of it comes from a frame.

    `earlier_pubkeys` are its rotated-out keys: sends that it accepted before a rotation are signed by them.
    """

    mesh_id: str
    member_id: str
    name: str
    pubkey: str
    allowance: Allowance
    earlier_pubkeys: tuple[str, ...] = ()

    def has_signed(self, signed: Signed) -> bool:
        """Tell whether an envelope is signed by a key of this member, for its mesh."""
        part, signature = signed
        if verify_envelope(self.pubkey, self.mesh_id, part, signature):
            return True
        return any(verify_envelope(key, self.mesh_id, part, signature) for key in self.earlier_pubkeys)
