"""Short spelling of an invite link for QR codes (docs/spec/lifecycle.md, Joining).

The JSON of a link is compressed with a dictionary of its fields, and written in base32. A QR code has a mode
for upper-case letters and digits that takes less room for them than for base64.
"""

from __future__ import annotations

import zlib
from base64 import b32decode, b32encode
from typing import Final

# Part of the format: it never changes.
_DICTIONARY: Final = (
    b'"}"replacement":{"kind":"replacement"},"name":"","ephemeral_only":true,"role":"owner","role":"admin",'
    b'0123456789abcdef{"broker_url":"wss://mesh.example.org:7900","mesh_id":"019","slug":"","invite_id":"01M",'
    b'"role":"member","expires_at_ms":17,"uses":1,"inviter_pubkey":"","signature":"==",'
    b'"introduction":{"name":"","member_id":"019","signature":"=="}}'
)
# First character of a code; the base64 of a JSON object begins with another one.
MARK: Final = "Z"
# Raw deflate: the code needs no checksum, because an invite is signed.
_RAW: Final = -zlib.MAX_WBITS
_BASE32: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")


def encode(payload: bytes) -> str:
    """Return the code of a link's JSON: `MARK` and base32."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, _RAW, zdict=_DICTIONARY)
    packed = deflate.compress(payload) + deflate.flush()
    return MARK + b32encode(packed).decode().rstrip("=")


def decode(text: str, limit: int) -> bytes | None:
    """Return the JSON of the code at the start of a text, None without a whole code of at most `limit` bytes.

    Characters behind the code are ignored.
    """
    upper = text.upper()
    if not upper.startswith(MARK):
        return None
    end = next((at for at, letter in enumerate(upper) if letter not in _BASE32), len(upper))
    # Eight characters are five bytes; of a part of them, whole bytes are taken.
    digits = upper[len(MARK) : end]
    digits = digits[: len(digits) - (len(digits) % 8 in (1, 3, 6))]
    inflate = zlib.decompressobj(_RAW, zdict=_DICTIONARY)
    try:
        payload = inflate.decompress(b32decode(digits + "=" * (-len(digits) % 8)), limit)
    except (ValueError, zlib.error):
        return None
    return payload if inflate.eof else None
