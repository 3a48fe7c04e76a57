"""Spelling of a destination: a key as it is, `#topic`, `queue:name`. Cheap to import, for commands."""

from __future__ import annotations

from typing import Final

TOPIC_MARK: Final = "#"
QUEUE_MARK: Final = "queue:"
_MARKS: Final = {"dm": "", "topic": TOPIC_MARK, "queue": QUEUE_MARK}


def spell_destination(kind: str, ref: str) -> str:
    """Return a destination in the form of `to`. A kind of a later version gets no mark."""
    return f"{_MARKS.get(kind, '')}{ref}"
