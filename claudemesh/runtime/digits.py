"""Whole numbers from untrusted text of any length."""

from __future__ import annotations

import re

# Python refuses to convert more than 4,300 digits, by an error of its own.
_DIGITS = re.compile(r"[0-9]{1,18}")


def whole_number(text: str, most: int) -> int | None:
    """Return a number of plain ASCII digits from 0 to `most`; None for anything else."""
    if _DIGITS.fullmatch(text) is None:
        return None
    number = int(text)
    return number if number <= most else None
