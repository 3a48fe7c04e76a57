"""Text for a terminal: none that another host wrote may drive it."""

from __future__ import annotations

import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def safe(value: object) -> str:
    """Return text with control and direction characters spelt out: no terminal obeys another host."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", "" if value is None else str(value))
