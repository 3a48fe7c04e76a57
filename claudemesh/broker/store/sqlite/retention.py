"""Retention and its check on SQLite, batch by batch (broker.md, Retention and audits).

A message is as old as the newest `history_horizon` row that knows it: at that lived time it was there.

Crash story: a batch is one transaction. A message's body, history and mentions go together with its
tombstone and the mark on its id, or all of them stay.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import orjson

from claudemesh.broker.store.sqlite.queries import QUERIES as _Q
from claudemesh.broker.store.types import LATEST_COMMIT_MS, Absent, Checked, CheckPosition, Finding, Swept

_BATCH = 500


def sweep_messages(raw: sqlite3.Connection, lived_ms: int, now_ms: int, after: int) -> Swept:
    """Delete messages that were kept for their mesh's retention of lived time and that nobody is owed.

    They go in the order of their acceptance.
    """
    limits = dict(raw.execute(_Q["retention"], (lived_ms - LATEST_COMMIT_MS,)).fetchall())
    rows = raw.execute(_Q["history_after"], (after, _BATCH)).fetchall()
    if not rows:
        return Swept(0, None)
    old = [row for row in rows if row[0] <= limits.get(row[2], 0)]
    owed = {row[0] for row in raw.execute(_Q["still_owed"], (_json([row[1] for row in old]),))}
    going = [row for row in old if row[1] not in owed]
    if going:
        ids = (_json([row[1] for row in going]),)
        for name in ("sweep_dedupe_mark", "sweep_queue_bodies", "sweep_topic_bodies", "sweep_mentions"):
            raw.execute(_Q[name], ids)
        raw.executemany(_Q["sweep_history"], [(row[0],) for row in going])
        raw.executemany(_Q["tombstone"], [(row[1], row[2], now_ms) for row in going])
    newest: int = rows[-1][0]
    done = len(rows) < _BATCH or newest >= max(limits.values(), default=0)
    return Swept(len(going), None if done else newest)


def sweep_dedupe(raw: sqlite3.Connection, lived_ms: int) -> int:
    """Forget ids whose time was lived through and whose messages are gone; returns how many.

    That is the mesh's retention and the one that the id was accepted under (`expires_at - first_seen_at`),
    whichever is longer. Where a whole batch has to wait, ids accepted later wait with it.
    """
    lived_ms -= LATEST_COMMIT_MS
    rows: list[Any] = []
    for mesh_id, newest in raw.execute(_Q["dedupe_retention"], (lived_ms,)).fetchall():
        if len(rows) < _BATCH:
            rows += raw.execute(_Q["expired_ids"], (mesh_id, newest, lived_ms, _BATCH - len(rows)))
    raw.executemany(_Q["forget_id"], [row[:3] for row in rows])
    raw.executemany(_Q["forget_tombstone"], [row[3:] for row in rows])
    return len(rows)


def absent_ephemerals(raw: sqlite3.Connection, lived_ms: int) -> list[Absent]:
    """Return ephemeral members whose lease has run out."""
    return [Absent(*row) for row in raw.execute(_Q["absent_ephemerals"], (lived_ms, _BATCH))]


def reap_ephemeral(raw: sqlite3.Connection, absent: Sequence[Absent], lived_ms: int) -> list[tuple[str, str]]:
    """Let members leave that are still as absent as they were found; returns (mesh, member) of each."""
    return [
        (one.mesh_id, one.member_id)
        for one in absent
        if raw.execute(
            _Q["reap_ephemeral"], (one.mesh_id, one.member_id, one.last_seen_at, lived_ms)
        ).rowcount
    ]


def check(raw: sqlite3.Connection, position: CheckPosition | None) -> Checked:
    """Look at one batch of one table; each row is judged in the very statement that reads it."""
    stage, after = position or (STAGES[0], None)
    if stage == "check_dedupe":
        return _check_dedupe(raw, after)
    first: Any = 0 if stage in ("check_history", "check_deliveries") else ""
    rows = raw.execute(_Q[stage], (first if after is None else after, _BATCH)).fetchall()
    findings = tuple(Finding(stage.replace("check", "orphan"), row[0]) for row in rows if not row[1])
    key = -1 if first == 0 else 0  # the column that the next batch goes on from
    return Checked(findings, len(rows), _next(stage, rows[-1][key] if rows else None, len(rows)))


STAGES = (
    "check_dedupe",
    "check_queue_bodies",
    "check_topic_bodies",
    "check_history",
    "check_deliveries",
    "check_mentions",
)


def _check_dedupe(raw: sqlite3.Connection, after: Any) -> Checked:
    rows = raw.execute(_Q["check_dedupe"], (*(after or ("", "", "")), _BATCH)).fetchall()
    findings = []
    for row in rows:
        broker_message_id, available, has_body, has_history, has_tombstone = row[3:]
        if available and not has_body:
            findings.append(Finding("dedupe_without_body", broker_message_id))
        if available and not has_history:
            findings.append(Finding("dedupe_without_history", broker_message_id))
        if not available and not has_tombstone:
            findings.append(Finding("dedupe_without_tombstone", broker_message_id))
    last = tuple(rows[-1][:3]) if rows else None
    return Checked(tuple(findings), len(rows), _next("check_dedupe", last, len(rows)))


def _next(stage: str, last: Any, count: int) -> CheckPosition | None:
    if count == _BATCH:
        return stage, last
    following = STAGES.index(stage) + 1
    return (STAGES[following], None) if following < len(STAGES) else None


def _json(values: list[str]) -> str:
    return orjson.dumps(values).decode()
