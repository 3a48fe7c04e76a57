"""Binary fields in JSON: standard base64, padded, in its one canonical spelling."""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64


def to_base64(raw: bytes) -> str:
    """Return the padded base64 text of some bytes."""
    return b2a_base64(raw, newline=False).decode("ascii")


def from_base64(text: object) -> bytes | None:
    """Return the bytes of a base64 text, or None unless it is exactly what `to_base64` would write."""
    if not isinstance(text, str) or len(text) % 4:
        return None
    try:
        raw = a2b_base64(text, strict_mode=True)
    except ValueError:
        return None
    # Only the last group can be spelt in several ways: by the bits that padding leaves over.
    tail = len(raw) % 3
    if tail and b2a_base64(raw[-tail:], newline=False) != text[-4:].encode("ascii"):
        return None
    return raw
