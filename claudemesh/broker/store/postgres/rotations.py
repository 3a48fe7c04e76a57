"""Rotations of members' keys on Postgres: member, keys and statements are written together."""

from __future__ import annotations

from typing import Any

from claudemesh.broker.store.decisions import EARLIER_KEYS, judge_rotation, steps_from
from claudemesh.broker.store.postgres.members import RACED, read_members
from claudemesh.broker.store.postgres.pools import Pools
from claudemesh.broker.store.postgres.queries import QUERIES as _Q
from claudemesh.broker.store.postgres.values import key_bytes
from claudemesh.broker.store.types import KeyStep, Member, NewKeys, Rotated, RotationRefused
from claudemesh.runtime.failpoints import failpoint


class PostgresRotations:
    """Implements `RotationStore`."""

    def __init__(self, pools: Pools) -> None:
        self._db = pools

    async def rotate(self, mesh_id: str, new: NewKeys, now_ms: int) -> Rotated | RotationRefused:
        return await self._db.transaction(
            lambda connection: _rotate(connection, mesh_id, new, now_ms), retried=RACED
        )


async def _rotate(connection: Any, mesh_id: str, new: NewKeys, now_ms: int) -> Rotated | RotationRefused:
    async def of_key(pubkey: str, query: str = "member_by_key") -> Member | None:
        found = await read_members(connection, query, mesh_id, key_bytes(pubkey))
        return found[0] if found else None

    async def is_taken(step: KeyStep) -> bool:
        if await of_key(step.pubkey) is not None:
            return True
        x25519_pubkey = key_bytes(step.x25519_pubkey)
        return await connection.fetchrow(_Q["sealing_key_taken"], mesh_id, x25519_pubkey) is not None

    holder = None
    for step in new.steps:
        holder = holder or await of_key(step.old_pubkey, "member_key_lock")
    steps = steps_from(holder, new)
    taken = any([await is_taken(step) for step in steps])
    outcome = judge_rotation(holder, await of_key(new.pubkey), new, taken=taken)
    if outcome is not None:
        return outcome
    assert holder is not None
    for step in steps:
        await _step(connection, holder, step, new.key_id, now_ms)
    keys = (key_bytes(new.pubkey), key_bytes(new.x25519_pubkey), new.x25519_signature, new.key_id)
    await connection.execute(_Q["member_set_keys"], *keys, mesh_id, holder.id)
    member = await of_key(new.pubkey)
    assert member is not None
    failpoint("rotate.before_commit")
    return Rotated(member, changed=True)


async def _step(connection: Any, holder: Member, step: KeyStep, key_id: str, now_ms: int) -> None:
    mesh_id = holder.mesh_id
    out = (step.statement, now_ms, mesh_id, key_bytes(step.old_pubkey))
    position = await connection.fetchval(_Q["member_key_rotate_out"], *out)
    keys = (key_bytes(step.pubkey), key_bytes(step.x25519_pubkey))
    await connection.execute(_Q["member_key_follow"], key_id, mesh_id, holder.id, *keys, now_ms, position + 1)
    await connection.execute(_Q["member_keys_prune"], mesh_id, holder.id, position - EARLIER_KEYS)
