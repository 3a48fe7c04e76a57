"""Ranges of bytes: the header `Content-Range` of an upload and `Range` of a download."""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct

from claudemesh.protocol.errors import ProtocolError

# A part that does not reach the end of the blob has at least so many bytes.
LEAST_PART: Final = 65_536
_CONTENT: Final = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
_WANTED: Final = re.compile(r"bytes=([0-9]{1,18})-([0-9]{1,18})?")


class Part(Struct, frozen=True):
    """The bytes from `first` up to and without `end`."""

    first: int
    end: int

    @property
    def length(self) -> int:
        """The number of bytes."""
        return self.end - self.first


def uploaded_part(text: str, size: int) -> Part:
    """Return the part that `Content-Range: bytes FIRST-LAST/TOTAL` names, of a blob of `size` bytes."""
    match = _CONTENT.fullmatch(text)
    if match is None:
        raise _refusal("Give Content-Range: bytes FIRST-LAST/TOTAL.")
    first, last, total = (int(number) for number in match.groups())
    if total != size:
        raise _refusal(f"The upload was begun with {size} bytes, not with {total}. Begin another one.")
    if not first <= last < size:
        raise _refusal(f"The range {first}-{last} is not one of {size} bytes.")
    part = Part(first, last + 1)
    if part.length < LEAST_PART and part.end < size:
        raise _refusal(f"A part that is not the last has at least {LEAST_PART} bytes. Send longer parts.")
    return part


def wanted_part(text: str | None, size: int) -> Part | None:
    """Return the part that `Range: bytes=FIRST-` or `bytes=FIRST-LAST` asks for, cut at the size.

    None asks for the whole blob: without a header, and with one of another form.
    """
    match = None if text is None else _WANTED.fullmatch(text)
    if match is None:
        return None
    first = int(match[1])
    end = size if match[2] is None else min(int(match[2]) + 1, size)
    if first >= end:
        raise ProtocolError("range_not_satisfiable", f"The blob has {size} bytes.", size=size)
    return Part(first, end)


def _refusal(text: str) -> ProtocolError:
    return ProtocolError("invalid_range", text)
