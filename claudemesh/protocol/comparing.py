"""Short authentication string: digits that two members compare to be sure of each other's keys.

The digits are derived from the keys of both, in one order, so both hosts show the same. A broker that gives
each of them another key would have to find keys with the same digits: a guess costs 16 MiB and tens of
milliseconds, and there are 10^12 strings.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from nacl.bindings import (
    crypto_pwhash_alg,
    crypto_pwhash_ALG_ARGON2ID13,
    crypto_pwhash_SALTBYTES,
)

_DOMAIN: Final = "claudemesh-compare-v1"
_KEY_BYTES, _PASSES, _MEMORY = 16, 2, 16 << 20
_DIGITS, _GROUP = 12, 4


class ComparedKeys(NamedTuple):
    """The public keys of one of both members, in hexadecimal."""

    ed25519_pubkey: str
    x25519_pubkey: str


def short_string(mesh_id: str, one: ComparedKeys, other: ComparedKeys) -> str:
    """Return 12 digits in groups of four, the same for both members."""
    fields = (_DOMAIN, mesh_id, *(key for keys in sorted((one, other)) for key in keys))
    digest = hashlib.sha256("\0".join(fields).encode()).digest()
    salt = hashlib.sha256(_DOMAIN.encode()).digest()[:crypto_pwhash_SALTBYTES]
    derived = crypto_pwhash_alg(_KEY_BYTES, digest, salt, _PASSES, _MEMORY, crypto_pwhash_ALG_ARGON2ID13)
    digits = str(int.from_bytes(derived, "big") % 10**_DIGITS).zfill(_DIGITS)
    return " ".join(digits[start : start + _GROUP] for start in range(0, _DIGITS, _GROUP))
