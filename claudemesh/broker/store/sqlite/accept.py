"""Check and write on SQLite: a batch of sends in one transaction, each with its own outcome.

Crash story: everything below happens between BEGIN IMMEDIATE and COMMIT. A crash before the commit
leaves none of the four side effects of any send; after it, all of them.

| failpoint | stands behind |
|---|---|
| `accept.after_dedupe_rows` | the dedupe rows |
| `accept.after_bodies` | the bodies |
| `accept.after_history` | the history rows |
| `accept.after_deliveries` | the delivery rows |
| `accept.before_commit` | everything, right before the commit |
| `accept.after_commit` | the commit |
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from claudemesh.broker.store.sqlite.queries import QUERIES as _Q
from claudemesh.broker.store.topic_keys import judge_key_epoch
from claudemesh.broker.store.types import (
    Accepted,
    AcceptOutcome,
    DedupeRow,
    Existing,
    NewDelivery,
    NewSend,
    Refused,
    SendKey,
)
from claudemesh.runtime.failpoints import failpoint

_DAY_MS = 86_400_000


def find_dedupe(raw: sqlite3.Connection, keys: Iterable[SendKey]) -> dict[SendKey, DedupeRow]:
    """Return the rows that exist for these keys."""
    wanted = [(key.mesh_id, key.sender_member_id, key.client_message_id) for key in keys]
    rows = raw.execute(_Q["dedupe_find"], (orjson.dumps(wanted).decode(),))
    return {
        SendKey(*row[:3]): DedupeRow(*row[3:9], history_available=bool(row[9]))  # type: ignore[misc]
        for row in rows
    }


def accept_batch(raw: sqlite3.Connection, sends: Sequence[NewSend], now_ms: int) -> Sequence[AcceptOutcome]:
    """Claim, check and write a batch, inside the caller's transaction."""
    batch = _Batch(raw, now_ms)
    taken = find_dedupe(raw, [send.key for send in sends])
    outcomes = [batch.add(send, taken) for send in sends]
    batch.write()
    return outcomes


# The recipient of a queue message that waits.
_UNASSIGNED = ""


class _Batch:
    """Collects the rows of one transaction; each look-up is made once."""

    def __init__(self, raw: sqlite3.Connection, now_ms: int) -> None:
        self._raw = raw
        self._now_ms = now_ms
        self._history_id = _last_id(raw, "message_history")
        self._delivery_id = _last_id(raw, "delivery_queue")
        self._known: dict[tuple[str, ...], Any] = {}
        self._dedupe: list[tuple[Any, ...]] = []
        self._queue_bodies: list[tuple[Any, ...]] = []
        self._topic_bodies: list[tuple[Any, ...]] = []
        self._history: list[tuple[Any, ...]] = []
        self._deliveries: list[tuple[Any, ...]] = []
        self._stored: dict[tuple[str, str, str], int] = {}

    def add(self, send: NewSend, taken: dict[SendKey, DedupeRow]) -> AcceptOutcome:
        """Decide one send. A key that is taken, also earlier in this batch, is answered with its row."""
        row = taken.get(send.key)
        if row is not None:
            return Existing(row)
        retention = self._ask("sender_active", send.key.mesh_id, send.key.sender_member_id)
        if not retention:
            return Refused("not_a_member")
        recipients = self._recipients(send)
        if isinstance(recipients, str):
            return Refused(recipients)
        self._history_id += 1
        taken[send.key] = DedupeRow(
            send.broker_message_id,
            self._history_id,
            send.request_fingerprint,
            send.destination_kind,
            send.destination_ref,
            self._now_ms,
        )
        self._note(send, retention[0])
        return Accepted(self._history_id, self._now_ms, self._deliver(send, recipients))

    def write(self) -> None:
        """Write everything that was decided."""
        if not self._dedupe:
            return
        steps: tuple[tuple[str, tuple[tuple[str, list[tuple[Any, ...]]], ...]], ...] = (
            ("accept.after_dedupe_rows", (("accept_dedupe", self._dedupe),)),
            (
                "accept.after_bodies",
                (("accept_queue_body", self._queue_bodies), ("accept_topic_body", self._topic_bodies)),
            ),
            ("accept.after_history", (("accept_history", self._history),)),
            ("accept.after_deliveries", (("accept_delivery", self._deliveries),)),
        )
        for point, statements in steps:
            for name, rows in statements:
                if rows:
                    self._raw.executemany(_Q[name], rows)
            failpoint(point)
        self._raw.executemany(_Q["stored_add"], [(*key, size) for key, size in self._stored.items()])

    def _recipients(self, send: NewSend) -> list[str] | str:
        """Return the recipients of a message, or why it is refused."""
        mesh_id, ref = send.key.mesh_id, send.destination_ref
        if send.destination_kind == "dm":
            found = self._ask("dm_recipient", mesh_id, ref)
            return [row[0] for row in found] if found else "destination_not_found"
        topic = self._ask("topic_accepting", mesh_id, ref)
        if not topic or topic[0][0] != send.destination_kind:
            return "destination_not_found"
        _, current, floor = topic[0]
        refusal = judge_key_epoch(send.key_epoch, current, floor)
        if refusal is not None:
            return refusal
        if send.destination_kind == "queue":
            return [_UNASSIGNED]
        members = [row[0] for row in self._ask("topic_recipients", mesh_id, ref)]
        return [member for member in members if member != send.key.sender_member_id]

    def _ask(self, query: str, *arguments: str) -> list[Any]:
        key = (query, *arguments)
        if key not in self._known:
            self._known[key] = self._raw.execute(_Q[query], arguments).fetchall()
        found: list[Any] = self._known[key]
        return found

    def _note(self, send: NewSend, retention: tuple[str, int]) -> None:
        key, now_ms, broker_message_id = send.key, self._now_ms, send.broker_message_id
        kind, ref = send.destination_kind, send.destination_ref
        mode, days = retention
        expires_at = None if mode == "permanent" else now_ms + days * _DAY_MS
        self._dedupe.append(
            (
                key.mesh_id,
                key.client_message_id,
                broker_message_id,
                self._history_id,
                send.request_fingerprint,
                kind,
                ref,
                key.sender_member_id,
                now_ms,
                expires_at,
            )
        )
        body = (key.sender_member_id, send.envelope, now_ms, send.key_epoch)
        stored = (key.mesh_id, key.sender_member_id, "topic" if kind == "topic" else "queue")
        self._stored[stored] = self._stored.get(stored, 0) + len(send.envelope)
        if kind == "topic":
            self._topic_bodies.append((broker_message_id, key.mesh_id, key.client_message_id, ref, *body))
        else:
            self._queue_bodies.append(
                (broker_message_id, key.mesh_id, key.client_message_id, kind, ref, *body)
            )
        self._history.append(
            (self._history_id, broker_message_id, key.mesh_id, kind, ref, key.sender_member_id, now_ms)
        )

    def _deliver(self, send: NewSend, recipients: Sequence[str]) -> tuple[NewDelivery, ...]:
        deliveries = []
        for recipient in recipients:
            self._delivery_id += 1
            if recipient != _UNASSIGNED:
                deliveries.append(NewDelivery(self._delivery_id, recipient))
            self._deliveries.append(
                (
                    self._delivery_id,
                    send.broker_message_id,
                    send.key.mesh_id,
                    recipient,
                    send.priority,
                    self._now_ms,
                    send.destination_ref if recipient == _UNASSIGNED else None,
                )
            )
        return tuple(deliveries)


def _last_id(raw: sqlite3.Connection, table: str) -> int:
    """Return the last id that a table has given out. It is never given out again."""
    row = raw.execute(_Q["sequence"], (table,)).fetchone()
    return row[0] if row else 0
