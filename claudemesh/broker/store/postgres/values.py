"""Values as Postgres holds them, and back: keys are bytes there, ULIDs of messages are UUIDs.

asyncpg takes a UUID as its text, hyphens or not, and gives an object whose text has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from claudemesh.broker.store.types import DueDelivery, InviteRow, Member, Mesh, PresenceRow
from claudemesh.protocol.ids import ulid_from_bytes, ulid_to_bytes

# A newer broker may have given the table more columns while this one runs.
_APART = ("earlier_pubkeys", "rotations", "statements")
_MEMBER = tuple(field.name for field in fields(Member) if field.name not in _APART)


def message_uuid(broker_message_id: str) -> str:
    """Return the 128 bits of a message's ULID as hexadecimal, which is a UUID's text."""
    return ulid_to_bytes(broker_message_id).hex()


def message_ulid(value: Any) -> str:
    """Return the ULID of a message's UUID."""
    return ulid_from_bytes(value.bytes)


def mesh_of(row: Sequence[Any]) -> Mesh:
    """Return a mesh from its row."""
    return Mesh(str(row[0]), *row[1:])


def invite_of(row: Sequence[Any]) -> InviteRow:
    """Return an invite from its row."""
    return InviteRow(row[0], str(row[1]), row[2], row[3].hex(), *row[4:])


def due_of(row: Sequence[Any]) -> DueDelivery:
    """Return a delivery from its row."""
    return DueDelivery(row[0], message_ulid(row[1]), row[2], str(row[3]), row[4], row[5].hex(), *row[6:])


def members_of(
    rows: Iterable[Mapping[str, Any]], earlier: Iterable[tuple[Any, bytes, str | None]]
) -> list[Member]:
    """Return members from their rows, and the rotated-out keys and statements of them all."""
    keys: dict[Any, list[str]] = {}
    rotations: dict[Any, list[str]] = {}
    for member_id, pubkey, statement in earlier:
        keys.setdefault(member_id, []).append(pubkey.hex())
        if statement is not None:
            rotations.setdefault(member_id, []).append(statement)
    return [
        Member(
            **{
                **{name: row[name] for name in _MEMBER},
                "id": str(row["id"]),
                "mesh_id": str(row["mesh_id"]),
                "ed25519_pubkey": row["ed25519_pubkey"].hex(),
                "x25519_pubkey": row["x25519_pubkey"].hex(),
            },
            earlier_pubkeys=tuple(keys.get(row["id"], ())),
            rotations=tuple(rotations.get(row["id"], ())),
        )
        for row in rows
    ]


def key_bytes(pubkey: str) -> bytes:
    """Return a public key's bytes."""
    return bytes.fromhex(pubkey)


def lease_columns(rows: Sequence[PresenceRow]) -> list[list[Any]]:
    """Return leases as the columns of a statement that takes many."""
    return [
        [row.connection_id for row in rows],
        [row.member_id for row in rows],
        [row.mesh_id for row in rows],
        [row.broker_id for row in rows],
        [row.connected_at for row in rows],
        [row.lease_until for row in rows],
        [row.instance_id for row in rows],
    ]
