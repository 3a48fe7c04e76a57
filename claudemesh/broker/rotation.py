"""Rotation of a member's keys: checks of the statements and proofs, then one transaction, then the news.

The page is docs/spec/broker.md, Rotation of keys.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from claudemesh.broker.admission import key_id_of, signature_of
from claudemesh.broker.context import Context
from claudemesh.broker.store.types import KeyStep, Member, NewKeys, RotationRefused
from claudemesh.protocol.base64 import from_base64
from claudemesh.protocol.errors import CloseCode, InvalidField, ProtocolError
from claudemesh.protocol.keys import verify_key_binding
from claudemesh.protocol.rotation import MAX_STATEMENTS, PURPOSE, Rotation, proven_chain
from claudemesh.protocol.signing import verify_request
from claudemesh.runtime import aside
from claudemesh.runtime.failpoints import failpoint

EVENT = "member_keypair_rotated"
FIELDS = ("rotations", "x25519_signature", "key_id", "proof", "x25519_proof")
_REFUSALS = {
    "not_a_member": "No active member of this mesh has one of the older keys. Join the mesh again.",
    "key_rotated_out": "The member has rotated to other keys since. Use those keys, or join again.",
    "key_taken": "One of the new keys belongs to a member already. Rotate to new keys.",
}


async def rotate(
    context: Context, mesh_id: str, body: Mapping[str, object], *, connection_id: str = ""
) -> Member:
    """Put a rotation in force and return the member. `ProtocolError` says why it is not.

    The connection of this id goes on. The member's other connections are closed: they were opened with an
    older key.
    """
    new = await _verified(context, mesh_id, body)
    holder = await holder_of(context, mesh_id, body)
    # A repetition, as after a lost answer, is free.
    if holder is not None and holder.ed25519_pubkey != new.pubkey:
        context.rotation_pace.take(holder.id)
    outcome = await context.store.rotations.rotate(mesh_id, new, context.clock.wall_ms())
    failpoint("rotate.after_commit")
    if isinstance(outcome, RotationRefused):
        raise refusal(outcome.error)
    member = outcome.member
    for connection in context.hub.of_member(mesh_id, member.id):
        if connection.connection_id == connection_id:
            connection.rekey(member)
    if outcome.changed:
        _tell(context, member, connection_id)
    return member


def refusal(error: str) -> ProtocolError:
    """Return the error for a rotation that wrote nothing."""
    return ProtocolError(error, _REFUSALS[error])


async def holder_of(context: Context, mesh_id: str, body: Mapping[str, object]) -> Member | None:
    """Return the member that has, or had, the key that the last statement leads to or from."""
    last = _statements(body)[-1]
    members = context.store.members
    found = await members.by_any_key(mesh_id, last.old_pubkey)
    return found or await members.by_any_key(mesh_id, last.pubkey)


async def is_of_a_member(context: Context, mesh_id: str, body: Mapping[str, object]) -> bool:
    """Tell whether a key of the statements is a member's. It costs a stranger's request no verification."""
    statements = _statements(body)
    keys = (statements[-1].pubkey, *(statement.old_pubkey for statement in reversed(statements)))
    for key in keys:
        if await context.store.members.by_any_key(mesh_id, key) is not None:
            return True
    return False


async def _verified(context: Context, mesh_id: str, body: Mapping[str, object]) -> NewKeys:
    """Return the new keys when every statement and proof is genuine."""
    statements = _statements(body)
    last = statements[-1]
    binding = signature_of(body.get("x25519_signature"), "x25519_signature")
    if not verify_key_binding(last.pubkey, last.x25519_pubkey, binding):
        raise ProtocolError(
            "bad_signature", "x25519_signature is not by the new key over the new x25519 key. Sign it."
        )
    proof = signature_of(body.get("proof"), "proof")
    if not verify_request(
        last.pubkey, purpose=PURPOSE, mesh_id=mesh_id, payload=last.signature, signature=proof
    ):
        raise ProtocolError(
            "bad_signature", "proof is not by the new key over the last statement. Sign that statement."
        )
    await context.challenge.check(last.pubkey, last.x25519_pubkey, from_base64(body.get("x25519_proof")))
    keys = {"pubkey": last.pubkey, "x25519_pubkey": last.x25519_pubkey}
    weight = aside.LIGHT_VALUES + len(statements)
    chain = await aside.run(weight, proven_chain, statements, mesh_id=mesh_id, **keys)
    if len(chain) != len(statements):
        raise ProtocolError(
            "bad_signature", "The statements are no chain of signed rotations. Give them oldest first."
        )
    steps = [await _step(context, mesh_id, statement) for statement in chain]
    return NewKeys(binding, key_id_of(body.get("key_id")), tuple(steps))


async def _step(context: Context, mesh_id: str, statement: Rotation) -> KeyStep:
    member = await context.store.members.by_key(mesh_id, statement.old_pubkey)
    if member is not None:
        statement = statement.with_older_key(member.x25519_pubkey, member.x25519_signature)
    text = orjson.dumps(statement.to_dict()).decode()
    return KeyStep(statement.old_pubkey, statement.pubkey, statement.x25519_pubkey, text)


def _statements(body: Mapping[str, object]) -> list[Rotation]:
    given = body.get("rotations")
    if not isinstance(given, list) or not 0 < len(given) <= MAX_STATEMENTS:
        raise InvalidField(
            "invalid_params", "rotations", f"rotations must be a list of 1 to {MAX_STATEMENTS} statements."
        )
    return [Rotation.parse(value) for value in given]


def _tell(context: Context, member: Member, connection_id: str) -> None:
    mesh_id, old_pubkey = member.mesh_id, member.earlier_pubkeys[-1]
    keys = {"pubkey": member.ed25519_pubkey, "old_pubkey": old_pubkey}
    context.audit.record(mesh_id, EVENT, member.id, **keys)
    context.feed.publish(mesh_id)
    context.cluster.broadcast(mesh_id, EVENT, {"name": member.name, "member_id": member.id, **keys})
    detail = "The member has rotated its keys. Connect again."
    context.cluster.disconnect(mesh_id, member.id, CloseCode.DRAINING, detail, besides=connection_id)
