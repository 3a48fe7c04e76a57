"""Retention and its check on SQLite, batch by batch (docs/spec/broker.md, Retention and audits).

A message is as old as the newest `history_horizon` row that knows it: at that lived time it was there.

Crash story: a batch is one transaction. A message's body and history go together with its
tombstone and the mark on its dedupe row, or all of them stay.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import orjson

from claudemesh.broker.store.decisions import (
    BATCH_ROWS,
    CHECK_STAGES,
    HistoryRow,
    dedupe_findings,
    next_position,
    past_retention,
    swept,
)
from claudemesh.broker.store.sqlite.queries import QUERIES as _Q
from claudemesh.broker.store.types import LATEST_COMMIT_MS, Absent, Checked, CheckPosition, Finding, Swept
from claudemesh.runtime.sqlite import Database

# Tables whose key is a number; the keys of the others are texts.
_NUMBERED = frozenset({"check_history", "check_deliveries"})


class SqliteRetention:
    """Implements `RetentionStore`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def sweep_messages(self, lived_ms: int, now_ms: int, after: int) -> Swept:
        return await self._db.transaction(lambda raw: _sweep_messages(raw, lived_ms, now_ms, after))

    async def sweep_dedupe(self, lived_ms: int) -> int:
        return await self._db.transaction(lambda raw: _sweep_dedupe(raw, lived_ms - LATEST_COMMIT_MS))

    async def absent_ephemerals(self, lived_ms: int) -> Sequence[Absent]:
        values = (lived_ms, BATCH_ROWS)
        rows = await self._db.run(lambda raw: raw.execute(_Q["absent_ephemerals"], values).fetchall())
        return [Absent(*row) for row in rows]

    async def reap_ephemeral(self, absent: Sequence[Absent], lived_ms: int) -> Sequence[tuple[str, str]]:
        def work(raw: sqlite3.Connection) -> Sequence[tuple[str, str]]:
            return [
                (one.mesh_id, one.member_id)
                for one in absent
                if raw.execute(
                    _Q["reap_ephemeral"], (one.mesh_id, one.member_id, one.last_seen_at, lived_ms)
                ).rowcount
            ]

        return await self._db.transaction(work)

    async def end_ephemerals(self, lived_ms: int) -> Sequence[tuple[str, str]]:
        values = (lived_ms, BATCH_ROWS)
        return await self._db.transaction(lambda raw: raw.execute(_Q["end_ephemerals"], values).fetchall())

    async def check(self, position: CheckPosition | None) -> Checked:
        stage, after = position or (CHECK_STAGES[0], None)
        judge = _check_dedupe if stage == "check_dedupe" else _check_orphans
        return await self._db.run(lambda raw: judge(raw, stage, after))


def _sweep_messages(raw: sqlite3.Connection, lived_ms: int, now_ms: int, after: int) -> Swept:
    limits = dict(raw.execute(_Q["retention"], (lived_ms - LATEST_COMMIT_MS,)).fetchall())
    rows = [HistoryRow(*row) for row in raw.execute(_Q["history_after"], (after, BATCH_ROWS))]
    old = past_retention(rows, limits)
    owed = {row[0] for row in raw.execute(_Q["still_owed"], (_json([row.message for row in old]),))}
    going = [row for row in old if row.message not in owed]
    if going:
        ids = (_json([row.message for row in going]),)
        for name in ("sweep_dedupe_mark", "sweep_queue_bodies", "sweep_topic_bodies"):
            raw.execute(_Q[name], ids)
        raw.executemany(_Q["sweep_history"], [(row.history_id,) for row in going])
        raw.executemany(_Q["tombstone"], [(row.message, row.mesh, now_ms) for row in going])
        raw.executemany(_Q["history_prune"], [(row.mesh, row.history_id + 1) for row in going])
        raw.execute(_Q["sweep_periods"])
    return swept(rows, limits, len(going))


def _sweep_dedupe(raw: sqlite3.Connection, lived_ms: int) -> int:
    rows: list[Any] = []
    for mesh_id, newest in raw.execute(_Q["dedupe_retention"], (lived_ms,)).fetchall():
        if len(rows) < BATCH_ROWS:
            rows += raw.execute(_Q["expired_ids"], (mesh_id, newest, lived_ms, BATCH_ROWS - len(rows)))
    raw.executemany(_Q["forget_id"], [row[:3] for row in rows])
    raw.executemany(_Q["forget_tombstone"], [row[3:] for row in rows])
    return len(rows)


def _check_orphans(raw: sqlite3.Connection, stage: str, after: Any) -> Checked:
    """Check one batch of a table whose rows belong to a message; each row is judged as it is read."""
    is_numbered = stage in _NUMBERED
    if after is None:
        after = 0 if is_numbered else ""
    rows = raw.execute(_Q[stage], (after, BATCH_ROWS)).fetchall()
    findings = tuple(Finding(stage.replace("check", "orphan"), row[0]) for row in rows if not row[1])
    last = rows[-1][-1 if is_numbered else 0] if rows else None
    return Checked(findings, len(rows), next_position(stage, last, len(rows)))


def _check_dedupe(raw: sqlite3.Connection, stage: str, after: Any) -> Checked:
    rows = raw.execute(_Q[stage], (*(after or ("", "", "")), BATCH_ROWS)).fetchall()
    findings = [
        finding
        for _, _, _, broker_message_id, available, has_body, has_history, has_tombstone in rows
        for finding in dedupe_findings(
            broker_message_id,
            available=bool(available),
            has_body=bool(has_body),
            has_history=bool(has_history),
            has_tombstone=bool(has_tombstone),
        )
    ]
    last = tuple(rows[-1][:3]) if rows else None
    return Checked(tuple(findings), len(rows), next_position(stage, last, len(rows)))


def _json(values: list[str]) -> str:
    return orjson.dumps(values).decode()
