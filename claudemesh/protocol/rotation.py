"""Key rotation: statements from an older key to the next (docs/spec/protocol.md, Keys of members).

A statement is signed by the older ed25519 key. It names the mesh, the older key, the newer ed25519 and x25519
keys, and the time. The statements of a member are listed oldest first; each begins with the key that the one
before leads to. An earlier key counts only if it is part of such a chain.

A statement may carry the older x25519 key with its signature by the older ed25519 key. A host that has not
seen the older keys opens with it what was sealed before the rotation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from claudemesh.protocol.base64 import from_base64, to_base64
from claudemesh.protocol.errors import InvalidField
from claudemesh.protocol.ids import check_key
from claudemesh.protocol.keys import SIGNATURE_BYTES, Identity, verify_key_binding
from claudemesh.protocol.signing import sign_rotation, verify_rotation

# One rotation a week for five years. Older statements do not count.
MAX_STATEMENTS: Final = 260
# Purpose of the request by which the new key proves its possession. The payload is the statement's signature.
PURPOSE: Final = "rotation"
_MAX_TIME_MS: Final = 2**48 - 1
_CODE: Final = "invalid_rotation"


@dataclass(frozen=True, slots=True)
class Rotation:
    """A statement: the member with the key `old_pubkey` now has the keys `pubkey` and `x25519_pubkey`.

    `old_x25519_pubkey` is empty when the statement carries no older x25519 key. Its signature is separate
    from that of the statement (`without_false_key`).
    """

    old_pubkey: str
    pubkey: str
    x25519_pubkey: str
    rotated_at_ms: int
    signature: bytes
    old_x25519_pubkey: str = ""
    old_x25519_signature: bytes = b""

    @classmethod
    def parse(cls, value: object) -> Rotation:
        """Return the statement of a JSON value, not verified yet. `InvalidField` invalid_rotation."""
        if not isinstance(value, Mapping):
            raise InvalidField(_CODE, "rotation", "A statement of a rotation must be a JSON object.")
        rotated_at_ms, signature = value.get("rotated_at_ms"), from_base64(value.get("signature"))
        if type(rotated_at_ms) is not int or not 0 <= rotated_at_ms <= _MAX_TIME_MS:
            raise InvalidField(_CODE, "rotated_at_ms", "rotated_at_ms must be Unix milliseconds.")
        if signature is None or len(signature) != SIGNATURE_BYTES:
            raise InvalidField(_CODE, "signature", f"signature must be {SIGNATURE_BYTES} bytes in base64.")
        return cls(
            check_key(value.get("old_pubkey"), "old_pubkey"),
            check_key(value.get("pubkey"), "pubkey"),
            check_key(value.get("x25519_pubkey"), "x25519_pubkey"),
            rotated_at_ms,
            signature,
            *_older_sealing_key(value),
        )

    def to_dict(self) -> dict[str, object]:
        """Return the JSON object of the statement."""
        older = {
            "old_x25519_pubkey": self.old_x25519_pubkey,
            "old_x25519_signature": to_base64(self.old_x25519_signature),
        }
        return {
            "old_pubkey": self.old_pubkey,
            "pubkey": self.pubkey,
            "x25519_pubkey": self.x25519_pubkey,
            "rotated_at_ms": self.rotated_at_ms,
            "signature": to_base64(self.signature),
            **(older if self.old_x25519_pubkey else {}),
        }

    def with_older_key(self, x25519_pubkey: str, x25519_signature: bytes) -> Rotation:
        """Return the statement with the older x25519 key and its signature by the older ed25519 key."""
        return replace(self, old_x25519_pubkey=x25519_pubkey, old_x25519_signature=x25519_signature)

    def without_false_key(self) -> Rotation:
        """Return the statement without its older x25519 key, unless the older ed25519 key has signed that."""
        if not self.old_x25519_pubkey or _is_bound(self):
            return self
        return replace(self, old_x25519_pubkey="", old_x25519_signature=b"")

    def verify(self, mesh_id: str) -> bool:
        """Tell whether the older key has signed this statement for a mesh."""
        return _is_signed(self, mesh_id)


# A list is judged again when it changes, and a chain is long. So what was found out is kept for a while.
@lru_cache(maxsize=4 * MAX_STATEMENTS)
def _is_signed(statement: Rotation, mesh_id: str) -> bool:
    return verify_rotation(
        statement.old_pubkey,
        mesh_id=mesh_id,
        pubkey=statement.pubkey,
        x25519_pubkey=statement.x25519_pubkey,
        rotated_at_ms=statement.rotated_at_ms,
        signature=statement.signature,
    )


@lru_cache(maxsize=4 * MAX_STATEMENTS)
def _is_bound(statement: Rotation) -> bool:
    return verify_key_binding(
        statement.old_pubkey, statement.old_x25519_pubkey, statement.old_x25519_signature
    )


def _older_sealing_key(value: Mapping[str, object]) -> tuple[str, bytes]:
    if value.get("old_x25519_pubkey") is None:
        return "", b""
    signature = from_base64(value.get("old_x25519_signature"))
    if signature is None or len(signature) != SIGNATURE_BYTES:
        text = f"old_x25519_signature must be {SIGNATURE_BYTES} bytes in base64."
        raise InvalidField(_CODE, "old_x25519_signature", text)
    return check_key(value.get("old_x25519_pubkey"), "old_x25519_pubkey"), signature


def make_rotation(old: Identity, new: Identity, *, mesh_id: str, rotated_at_ms: int) -> Rotation:
    """Return the signed statement from one identity to the next, without the older x25519 key."""
    signature = sign_rotation(
        old,
        mesh_id=mesh_id,
        pubkey=new.ed25519_pubkey,
        x25519_pubkey=new.x25519_pubkey,
        rotated_at_ms=rotated_at_ms,
    )
    return Rotation(old.ed25519_pubkey, new.ed25519_pubkey, new.x25519_pubkey, rotated_at_ms, signature)


def proven_chain(
    statements: Sequence[Rotation], *, mesh_id: str, pubkey: str, x25519_pubkey: str
) -> tuple[Rotation, ...]:
    """Return the proven statements that lead to the present keys of a member, oldest first.

    The chain is followed from its end, as long as each statement verifies and leads to a key that is not in
    the chain yet. Older statements are left out. The last statement names both present keys. An older x25519
    key that the older ed25519 key has not signed is left out of its statement.
    """
    proven: list[Rotation] = []
    seen, wanted = {pubkey}, pubkey
    for statement in reversed(statements[-MAX_STATEMENTS:]):
        fits = statement.pubkey == wanted and statement.old_pubkey not in seen
        if not proven:
            fits = fits and statement.x25519_pubkey == x25519_pubkey
        if not fits or not statement.verify(mesh_id):
            break
        proven.append(statement.without_false_key())
        wanted = statement.old_pubkey
        seen.add(wanted)
    return tuple(reversed(proven))
