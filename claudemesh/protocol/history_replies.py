"""The reply of a broker to `history`: a page of messages in the form of deliveries."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from claudemesh.protocol import fields
from claudemesh.protocol.fields import Json
from claudemesh.protocol.frames import Deliver
from claudemesh.protocol.frames.decode import parse_deliver
from claudemesh.protocol.replies import Listing, entries, reader, record

# Messages in one page.
HISTORY_ITEMS: Final = 500


@dataclass(frozen=True, slots=True)
class HistoryPage(Listing):
    """A page of the caller's messages. Their envelopes are not verified yet, and their delivery ids are 0.

    `more`: there are others in the direction of reading.
    Messages below `pruned_before` are deleted.
    """

    items: tuple[Deliver, ...]
    more: bool
    pruned_before: int


@reader("history")
def history_page(value: Any) -> HistoryPage:
    """Read the reply to `history`. A wrong item is left out and noted."""
    found = record(value, "ok")
    items, faults = entries(found, "items", _item, "history")
    ids = [one.history_id for one in items]
    if len(items) + len(faults) > HISTORY_ITEMS:
        fields.refuse("items", f"be a list of at most {HISTORY_ITEMS}")
    if any(later <= earlier for earlier, later in pairwise(ids)):
        fields.refuse("items", "be in the order of the history ids")
    return HistoryPage(
        items=items,
        more=fields.boolean(found, "more"),
        pruned_before=fields.integer(found, "pruned_before"),
        faults=faults,
    )


def _item(item: Json) -> Deliver:
    return parse_deliver({**item, "delivery_id": 0})
