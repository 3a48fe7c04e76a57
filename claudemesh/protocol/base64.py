"""Base64 of binary fields: padded, in the one canonical spelling (docs/spec/protocol.md, JSON)."""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64


def to_base64(raw: bytes) -> str:
    """Return the padded base64 text of bytes."""
    return b2a_base64(raw, newline=False).decode("ascii")


def from_base64(text: object) -> bytes | None:
    """Return the bytes of a base64 text; None for any text that `to_base64` does not write."""
    if not isinstance(text, str) or len(text) % 4:
        return None
    try:
        raw = a2b_base64(text, strict_mode=True)
    except ValueError:
        return None
    # Padding leaves unused bits in the last group, so only that group has several spellings.
    tail = len(raw) % 3
    if tail and b2a_base64(raw[-tail:], newline=False) != text[-4:].encode("ascii"):
        return None
    return raw
