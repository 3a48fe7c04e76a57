"""Rows of the outbox as mappings: the query of a page, the form in the API, and changes of status."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from claudemesh.daemon.outbox.states import Status, Step
from claudemesh.protocol.receipts import ReceiptState
from claudemesh.runtime.queries import load_queries

_Q = load_queries("claudemesh.daemon.sql", "outbox.sql")


def move(
    raw: sqlite3.Connection, statement: str, step: Step, rows: Iterable[tuple[Sequence[object], str]]
) -> int:
    """Change the status of rows by one step; return the number changed. Rows in another status stay as is.

    `statement` is a query of outbox.sql. Each of `rows` holds the values that it sets, then the row's id.
    """
    origin, target = step.origin.value, step.target.value
    values = [(target, *set_to, row_id, origin) for set_to, row_id in rows]
    return raw.executemany(_Q[statement], values).rowcount if values else 0


def get_row(raw: sqlite3.Connection, key: str) -> dict[str, Any] | None:
    rows = dicts(raw.execute(_Q["get"], (key,)))
    return rows[0] if rows else None


def dicts(cursor: sqlite3.Cursor) -> list[dict[str, Any]]:
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def page_statement(status: Status | None, *, newest_first: bool, first: bool) -> str:
    """Return the SQL statement of a page. Each status but done has an index of its own."""
    order = "DESC" if newest_first else "ASC"
    behind = "TRUE" if first else f"rowid {'<' if newest_first else '>'} :after"
    conditions = behind if status is None else f"status = '{status.value}' AND {behind}"
    index = "" if status in (None, Status.DONE) else f"INDEXED BY outbox_{status.value}"
    # No injection: all parts of the statement are constants of this module.
    chosen = f"SELECT rowid FROM outbox {index} WHERE {conditions} ORDER BY rowid {order} LIMIT :limit"  # noqa: S608
    return f"SELECT rowid AS cursor, * FROM outbox WHERE rowid IN ({chosen}) ORDER BY rowid {order}"  # noqa: S608


_HIDDEN = frozenset(
    {
        *("payload", "cursor", "priority", "lived_ms", "done_lived_ms", "first_sent_broker_ms"),
        *("waiting_topic", "recipient"),
    }
)


def public(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as the API shows it: the fingerprint in hexadecimal, and only the destination of the
    payload."""
    item = {name: value for name, value in row.items() if name not in _HIDDEN}
    item["request_fingerprint"] = row["request_fingerprint"].hex()
    item["receipt"] = None if row["receipt"] is None else ReceiptState(row["receipt"]).word
    item["local"] = bool(row["local"])
    item["waiting_for"] = None if row["waiting_topic"] is None else "topic_key"
    if row["payload"]:
        envelope = orjson.loads(row["payload"])
        for name in ("destination_kind", "destination_ref", "priority", "reply_to_id"):
            item[name] = envelope[name]
    return item
