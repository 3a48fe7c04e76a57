"""Names of received files: the name that a sender offers, made safe for a directory of this host."""

from __future__ import annotations

import unicodedata
from typing import Final

# Below the 255 bytes of a file system, so that programs can add a suffix.
MAX_NAME_BYTES: Final = 240
_MAX_SUFFIX_BYTES: Final = 32
_FALLBACK: Final = "file"
# Control characters, format characters (bidi among them), surrogates, and separators of lines.
_REMOVED: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_RESERVED: Final = frozenset('<>:"|?*')


def safe_name(offered: str) -> str:
    """Return the last part of an offered name without characters that mislead people, shells or terminals.

    The result is never empty, hidden, `.` or `..`, has no separator and begins with no dash.
    """
    last = offered.replace("\\", "/").rpartition("/")[2]
    kept = "".join(
        "_" if char in _RESERVED else char
        for char in unicodedata.normalize("NFC", last)
        if unicodedata.category(char) not in _REMOVED
    )
    return _shortened(kept.lstrip(" .-\u00a0").rstrip(" .")) or _FALLBACK


def _shortened(name: str) -> str:
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    stem, dot, suffix = name.rpartition(".")
    tail = f"{dot}{suffix}" if stem and len(suffix.encode()) <= _MAX_SUFFIX_BYTES else ""
    head = name.encode()[: MAX_NAME_BYTES - len(tail.encode())].decode(errors="ignore")
    return f"{head.rstrip(' .')}{tail}"
