"""Rows of the outbox as mappings: as they are, and as the API shows them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

import orjson

from claudemesh.daemon.outbox.states import Status
from claudemesh.runtime.queries import load_queries

_Q = load_queries("claudemesh.daemon.sql", "outbox.sql")


def get_row(raw: sqlite3.Connection, key: str) -> dict[str, Any] | None:
    rows = dicts(raw.execute(_Q["get"], (key,)))
    return rows[0] if rows else None


def dicts(cursor: sqlite3.Cursor) -> list[dict[str, Any]]:
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def page_statement(status: Status | None, *, newest_first: bool, first: bool) -> str:
    """The statement of a page. What is not done is few among many, and found by its status's own index."""
    order = "DESC" if newest_first else "ASC"
    behind = "TRUE" if first else f"rowid {'<' if newest_first else '>'} :after"
    conditions = behind if status is None else f"status = '{status.value}' AND {behind}"
    index = "" if status in (None, Status.DONE) else f"INDEXED BY outbox_{status.value}"
    # Every word of it is ours.
    chosen = f"SELECT rowid FROM outbox {index} WHERE {conditions} ORDER BY rowid {order} LIMIT :limit"  # noqa: S608
    return f"SELECT rowid AS cursor, * FROM outbox WHERE rowid IN ({chosen}) ORDER BY rowid {order}"  # noqa: S608


_HIDDEN = frozenset({"payload", "cursor", "priority", "lived_ms", "first_sent_broker_ms"})


def public(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as the API shows it: its columns but the payload, the fingerprint in hex, and whom it is for."""
    item = {name: value for name, value in row.items() if name not in _HIDDEN}
    item["request_fingerprint"] = row["request_fingerprint"].hex()
    if row["payload"]:
        envelope = orjson.loads(row["payload"])
        for name in ("destination_kind", "destination_ref", "priority", "reply_to_id"):
            item[name] = envelope[name]
    return item
