"""A member's two key pairs, and the signature that ties them together (protocol.md, Envelope)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base, crypto_sign, crypto_sign_seed_keypair
from nacl.bindings import crypto_sign_open as _open
from nacl.exceptions import CryptoError

from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.ids import HEX_32, KEY_ID

SEED_BYTES = 32
SIGNATURE_BYTES = 64

_BINDING_DOMAIN = b"claudemesh-x25519-v1"
_FIELD_PRIME = 2**255 - 19
_PROBE = b"\x01" * 32


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a member is: an ed25519 pair that signs, an x25519 pair that others seal to, and its key_id."""

    key_id: str
    ed25519_seed: bytes = field(repr=False)
    ed25519_pubkey: str
    x25519_privkey: bytes = field(repr=False)
    x25519_pubkey: str
    x25519_signature: bytes

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of this member's ed25519 signature."""
        return sign_detached(message, self.ed25519_seed + bytes.fromhex(self.ed25519_pubkey))

    def to_json(self) -> dict[str, object]:
        """Return everything as JSON, secrets included: for a file that only its owner can read."""
        return {
            "key_id": self.key_id,
            "ed25519_seed": self.ed25519_seed.hex(),
            "ed25519_pubkey": self.ed25519_pubkey,
            "x25519_privkey": self.x25519_privkey.hex(),
            "x25519_pubkey": self.x25519_pubkey,
            "x25519_signature": self.x25519_signature.hex(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> Identity:
        """Derive the keys anew from their secrets. `ProtocolError` malformed_key when anything differs."""
        key_id = value.get("key_id")
        if not isinstance(key_id, str) or KEY_ID.fullmatch(key_id) is None:
            raise _malformed("key_id")
        seed, privkey = _secret(value, "ed25519_seed"), _secret(value, "x25519_privkey")
        identity = _derive(key_id, seed, privkey)
        for name, derived in identity.to_json().items():
            if value.get(name) != derived:
                raise _malformed(name)
        return identity


def new_identity(entropy: Callable[[int], bytes], key_id: str) -> Identity:
    """Make both key pairs from 64 bytes of entropy."""
    return _derive(key_id, entropy(SEED_BYTES), entropy(SEED_BYTES))


def verify_key_binding(ed25519_pubkey: str, x25519_pubkey: str, signature: bytes) -> bool:
    """Tell whether the ed25519 key has signed the x25519 key, and both are keys that one can use."""
    if HEX_32.fullmatch(ed25519_pubkey) is None or not _usable_point(x25519_pubkey):
        return False
    return verify_detached(_binding(ed25519_pubkey, x25519_pubkey), signature, ed25519_pubkey)


def sign_detached(message: bytes, secret: bytes) -> bytes:
    """Return the 64 bytes that a libsodium secret key (seed and public key) signs a message with."""
    return crypto_sign(message, secret)[:SIGNATURE_BYTES]


def verify_detached(message: bytes, signature: bytes, pubkey: str) -> bool:
    """Tell whether a signature is this key's; never raises. Weak keys, malleated signatures: False."""
    if len(signature) != SIGNATURE_BYTES or HEX_32.fullmatch(pubkey) is None:
        return False
    try:
        _open(signature + message, bytes.fromhex(pubkey))
    except CryptoError:
        return False
    return True


def _derive(key_id: str, seed: bytes, privkey: bytes) -> Identity:
    public, secret = crypto_sign_seed_keypair(seed)
    ed25519_pubkey, x25519_pubkey = public.hex(), crypto_scalarmult_base(privkey).hex()
    signature = sign_detached(_binding(ed25519_pubkey, x25519_pubkey), secret)
    return Identity(key_id, seed, ed25519_pubkey, privkey, x25519_pubkey, signature)


def _binding(ed25519_pubkey: str, x25519_pubkey: str) -> bytes:
    return b"\0".join((_BINDING_DOMAIN, ed25519_pubkey.encode(), x25519_pubkey.encode()))


def _usable_point(pubkey: str) -> bool:
    if HEX_32.fullmatch(pubkey) is None:
        return False
    raw = bytes.fromhex(pubkey)
    if int.from_bytes(raw, "little") >= _FIELD_PRIME:
        return False
    try:
        crypto_scalarmult(_PROBE, raw)
    except CryptoError:  # of low order: the shared key would be the same for everybody
        return False
    return True


def _secret(value: Mapping[str, object], name: str) -> bytes:
    text = value.get(name)
    if not isinstance(text, str) or HEX_32.fullmatch(text) is None:
        raise _malformed(name)
    return bytes.fromhex(text)


def _malformed(name: str) -> ProtocolError:
    # The name only, never the value: this file holds secrets.
    return ProtocolError("malformed_key", f"The key file's {name} is missing or does not match the others.")
