"""Rotations of members' keys on SQLite: member, keys and statements are written together."""

from __future__ import annotations

import sqlite3

from claudemesh.broker.store.decisions import EARLIER_KEYS, judge_rotation, steps_from
from claudemesh.broker.store.sqlite.members import read_members
from claudemesh.broker.store.sqlite.queries import QUERIES as _Q
from claudemesh.broker.store.types import KeyStep, Member, NewKeys, Rotated, RotationRefused
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.sqlite import Database


class SqliteRotations:
    """Implements `RotationStore`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def rotate(self, mesh_id: str, new: NewKeys, now_ms: int) -> Rotated | RotationRefused:
        return await self._db.transaction(lambda raw: _rotate(raw, mesh_id, new, now_ms))


def _rotate(raw: sqlite3.Connection, mesh_id: str, new: NewKeys, now_ms: int) -> Rotated | RotationRefused:
    def of_key(pubkey: str) -> Member | None:
        found = read_members(raw, raw.execute(_Q["member_by_key"], (mesh_id, pubkey)))
        return found[0] if found else None

    holder = next(filter(None, (of_key(step.old_pubkey) for step in new.steps)), None)
    steps = steps_from(holder, new)
    taken = any(
        of_key(step.pubkey) is not None
        or raw.execute(_Q["sealing_key_taken"], (mesh_id, step.x25519_pubkey)).fetchone() is not None
        for step in steps
    )
    outcome = judge_rotation(holder, of_key(new.pubkey), new, taken=taken)
    if outcome is not None:
        return outcome
    assert holder is not None
    for step in steps:
        _step(raw, holder, step, new.key_id, now_ms)
    keys = (new.pubkey, new.x25519_pubkey, new.x25519_signature, new.key_id)
    raw.execute(_Q["member_set_keys"], (*keys, mesh_id, holder.id))
    member = of_key(new.pubkey)
    assert member is not None
    failpoint("rotate.before_commit")
    return Rotated(member, changed=True)


def _step(raw: sqlite3.Connection, holder: Member, step: KeyStep, key_id: str, now_ms: int) -> None:
    mesh_id = holder.mesh_id
    out = (step.statement, now_ms, mesh_id, step.old_pubkey)
    # fetchall ends the statement, so that its row is written.
    [(position,)] = raw.execute(_Q["member_key_rotate_out"], out).fetchall()
    key = (key_id, mesh_id, holder.id, step.pubkey, step.x25519_pubkey, now_ms, position + 1)
    raw.execute(_Q["member_key_follow"], key)
    raw.execute(_Q["member_keys_prune"], (mesh_id, holder.id, position - EARLIER_KEYS))
