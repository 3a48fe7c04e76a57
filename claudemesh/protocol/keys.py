"""Key pairs of members, ed25519 and x25519 (docs/spec/protocol.md, Keys of members)."""

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
    """The private keys of a member: an ed25519 pair that signs, an x25519 pair that others seal to."""

    key_id: str
    ed25519_seed: bytes = field(repr=False)
    ed25519_pubkey: str
    x25519_privkey: bytes = field(repr=False)
    x25519_pubkey: str
    x25519_signature: bytes

    def sign(self, message: bytes) -> bytes:
        """Return the ed25519 signature of a message, 64 bytes."""
        return sign_detached(message, self.ed25519_seed + bytes.fromhex(self.ed25519_pubkey))

    def to_json(self) -> dict[str, object]:
        """Return all fields as JSON, private keys included. Only a file of mode 0600 may hold it."""
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
        """Return the identity of a key file. `ProtocolError` malformed_key: its fields do not match."""
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
    """Return a new identity. `entropy` returns the requested number of random bytes."""
    return _derive(key_id, entropy(SEED_BYTES), entropy(SEED_BYTES))


def verify_key_binding(ed25519_pubkey: str, x25519_pubkey: str, signature: bytes) -> bool:
    """Tell whether the ed25519 key has signed the x25519 key, and both are usable keys."""
    if HEX_32.fullmatch(ed25519_pubkey) is None or not _usable_point(x25519_pubkey):
        return False
    return verify_detached(_binding(ed25519_pubkey, x25519_pubkey), signature, ed25519_pubkey)


def sign_detached(message: bytes, secret: bytes) -> bytes:
    """Return the ed25519 signature, 64 bytes; `secret` is the seed followed by the public key."""
    return crypto_sign(message, secret)[:SIGNATURE_BYTES]


def verify_detached(message: bytes, signature: bytes, pubkey: str) -> bool:
    """Tell whether a signature is valid. Weak keys and malleated signatures are not. Raises nothing."""
    raw = raw_pubkey(pubkey)
    return raw is not None and verify_raw(message, signature, raw)


def verify_raw(message: bytes, signature: bytes, raw: bytes) -> bool:
    """Do what `verify_detached` does, with the 32 bytes of a key."""
    if len(signature) != SIGNATURE_BYTES:
        return False
    try:
        _open(signature + message, raw)
    except CryptoError:
        return False
    return True


def raw_pubkey(pubkey: str) -> bytes | None:
    """Return the 32 bytes of a key in hexadecimal; None when the text is none."""
    return bytes.fromhex(pubkey) if HEX_32.fullmatch(pubkey) is not None else None


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
    except CryptoError:  # of low order: every shared key would be the same
        return False
    return True


def _secret(value: Mapping[str, object], name: str) -> bytes:
    text = value.get(name)
    if not isinstance(text, str) or HEX_32.fullmatch(text) is None:
        raise _malformed(name)
    return bytes.fromhex(text)


def _malformed(name: str) -> ProtocolError:
    # The message names the field and not its value, which may be a private key.
    return ProtocolError(
        "malformed_key",
        f"The key file's {name} is missing or does not match its other fields. Restore it from a backup.",
    )
