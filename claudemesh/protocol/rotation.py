"""The chain of signed statements by which a member passes from one key to the next (protocol.md, Envelope).

A statement is signed by the older ed25519 key. It names the mesh, the older key, the newer ed25519 and x25519
keys and the time. Statements of a member stand oldest first; each begins with the key in which the one before
it ends.
A key that stands in no such chain is nobody's earlier key, whatever a broker says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from claudemesh.protocol.base64 import from_base64, to_base64
from claudemesh.protocol.errors import InvalidField
from claudemesh.protocol.ids import check_key
from claudemesh.protocol.keys import SIGNATURE_BYTES, Identity
from claudemesh.protocol.signing import sign_rotation, verify_rotation

# A member that changes its keys every week for five years. Older statements do not count.
MAX_STATEMENTS: Final = 260
_MAX_TIME_MS: Final = 2**48 - 1
_CODE: Final = "invalid_rotation"


@dataclass(frozen=True, slots=True)
class Rotation:
    """The holder of `old_pubkey` goes on as `pubkey`, and is sealed to with `x25519_pubkey`."""

    old_pubkey: str
    pubkey: str
    x25519_pubkey: str
    rotated_at_ms: int
    signature: bytes

    @classmethod
    def parse(cls, value: object) -> Rotation:
        """Check a JSON value. `InvalidField` invalid_rotation; the signature is not verified here."""
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
        )

    def to_dict(self) -> dict[str, object]:
        """Return the JSON object that travels."""
        return {
            "old_pubkey": self.old_pubkey,
            "pubkey": self.pubkey,
            "x25519_pubkey": self.x25519_pubkey,
            "rotated_at_ms": self.rotated_at_ms,
            "signature": to_base64(self.signature),
        }

    def verify(self, mesh_id: str) -> bool:
        """Tell whether the older key has signed exactly this for a mesh."""
        return verify_rotation(
            self.old_pubkey,
            mesh_id=mesh_id,
            pubkey=self.pubkey,
            x25519_pubkey=self.x25519_pubkey,
            rotated_at_ms=self.rotated_at_ms,
            signature=self.signature,
        )


def make_rotation(old: Identity, new: Identity, *, mesh_id: str, rotated_at_ms: int) -> Rotation:
    """Return the statement by which one identity passes to the next."""
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
    """Return the statements that lead to a member's present keys, oldest first.

    The chain is followed from its end, as far as each statement is genuine and leads to a key that the chain
    does not hold already; what is older does not count. The last statement names both present keys.
    """
    proven: list[Rotation] = []
    seen, wanted = {pubkey}, pubkey
    for statement in reversed(statements[-MAX_STATEMENTS:]):
        fits = statement.pubkey == wanted and statement.old_pubkey not in seen
        if not proven:
            fits = fits and statement.x25519_pubkey == x25519_pubkey
        if not fits or not statement.verify(mesh_id):
            break
        proven.append(statement)
        wanted = statement.old_pubkey
        seen.add(wanted)
    return tuple(reversed(proven))
