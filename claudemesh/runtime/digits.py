"""Whole numbers from untrusted text of any length."""

from __future__ import annotations

import re

# Python raises an error for more than 4,300 digits.
_DIGITS = re.compile(r"[0-9]{1,18}")


def whole_number(text: str, most: int) -> int | None:
    """Return a number from 0 to `most`, written in ASCII digits; None for any other text."""
    if _DIGITS.fullmatch(text) is None:
        return None
    number = int(text)
    return number if number <= most else None
