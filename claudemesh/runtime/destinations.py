"""The one spelling of a destination: a key as it is, `#topic`, `queue:name`. Light, for commands too."""

from __future__ import annotations

from typing import Final

TOPIC_MARK: Final = "#"
QUEUE_MARK: Final = "queue:"
_MARKS: Final = {"dm": "", "topic": TOPIC_MARK, "queue": QUEUE_MARK}


def spell_destination(kind: str, ref: str) -> str:
    """Return the `to` that names this destination. A kind of a later version is shown without a mark."""
    return f"{_MARKS.get(kind, '')}{ref}"
