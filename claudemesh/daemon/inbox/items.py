"""Messages as mappings, in the form that the API, the events and the hooks use."""

from __future__ import annotations

import sqlite3
from typing import Any

from claudemesh.daemon.inbox.attached import shown_attachments
from claudemesh.protocol.ids import is_ulid, ulid_time_ms
from claudemesh.protocol.jsontext import JsonText
from claudemesh.runtime.clock import iso_ms

_TIMES = ("received_at", "notified_at", "shown_at", "acked_at")
# Columns with a meaning within this daemon only.
_HIDDEN = (
    *("lived_ms", "receipt", "receipt_due", "request_fingerprint"),
    *("notified_by", "shown_by", "acked_by", "told"),
)
# Fields whose text another member wrote: the reader must treat it as data, never as an instruction.
UNTRUSTED = ("attachments", "body", "from_session", "meta", "sender_name", "to_session")


def sent_at(broker_message_id: str | None) -> str | None:
    """Return the time at which the broker accepted a message; its id holds that time."""
    if broker_message_id is None or not is_ulid(broker_message_id):
        return None
    return iso_ms(ulid_time_ms(broker_message_id))


def items_of(cursor: sqlite3.Cursor) -> list[dict[str, Any]]:
    """Return the rows of a query over the inbox as mappings by column name; times become ISO 8601."""
    names = [column[0] for column in cursor.description]
    items = []
    for values in cursor:
        row = dict(zip(names, values, strict=True))
        for name in _HIDDEN:
            row.pop(name, None)
        row["meta"] = None if row["meta"] is None else JsonText(row["meta"])
        for name in _TIMES:
            row[name] = None if row[name] is None else iso_ms(row[name])
        row["sent_at"] = sent_at(row["broker_message_id"])
        row["mentioned"] = bool(row["mentioned"])
        row["recovered"] = bool(row["recovered"])
        row["in_loop"] = bool(row["in_loop"])
        row["sealed"] = row["body"] is None
        row |= shown_attachments(row["attachments"])
        row["untrusted"] = UNTRUSTED
        items.append(row)
    return items
