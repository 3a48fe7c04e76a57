"""Base64 of binary fields: padded, in the one canonical spelling (docs/spec/protocol.md, JSON)."""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from typing import Final

# Characters from which on a text is decoded by msgspec.
_LONG: Final = 256


def to_base64(raw: bytes) -> str:
    """Return the padded base64 text of bytes."""
    return b2a_base64(raw, newline=False).decode("ascii")


def from_base64(text: object) -> bytes | None:
    """Return the bytes of a base64 text; None for any text that `to_base64` does not write."""
    if not isinstance(text, str) or len(text) % 4:
        return None
    raw = _quickly(text) if len(text) >= _LONG else _strictly(text)
    if raw is None or len(raw) != len(text) // 4 * 3 - text.count("=", -2):
        return None
    # Padding leaves unused bits in the last group, so only that group has several spellings.
    tail = len(raw) % 3
    if tail and b2a_base64(raw[-tail:], newline=False) != text[-4:].encode("ascii"):
        return None
    return raw


def _strictly(text: str) -> bytes | None:
    try:
        return a2b_base64(text, strict_mode=True)
    except ValueError:
        return None


def _quickly(text: str) -> bytes | None:
    """Decode in a third of the time. The import costs a command line more than its few short texts."""
    import msgspec

    try:
        return msgspec.convert(text, bytes)
    except (ValueError, msgspec.MsgspecError):
        return None
