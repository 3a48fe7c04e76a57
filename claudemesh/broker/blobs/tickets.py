"""Tickets: the right of one member to upload or download one blob for ten minutes.

A ticket is a payload and its HMAC. The key is in the database, so every broker of it accepts the ticket, and
none has to remember it. Its time is that of the lived clock, which those brokers share.
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from claudemesh.protocol.base64 import from_base64, to_base64
from claudemesh.protocol.errors import ProtocolError

Direction: TypeAlias = Literal["up", "down"]

TICKET_LIFE_MS: Final = 600_000
KEY_BYTES: Final = 32
_CONTEXT: Final = b"claudemesh-blob-ticket-v1\0"
_LONGEST: Final = 512
_FIELDS: Final = 5


class Ticket(Struct, frozen=True):
    """The right that a ticket gives; `ends_lived_ms` is a time of the lived clock."""

    mesh_id: str
    member_id: str
    blob_id: str
    direction: Direction
    ends_lived_ms: int


def make_ticket(key: bytes, ticket: Ticket) -> str:
    """Return a ticket as text."""
    parts = (ticket.mesh_id, ticket.member_id, ticket.blob_id, ticket.direction, str(ticket.ends_lived_ms))
    payload = "\0".join(parts).encode()
    return f"{to_base64(payload)}.{to_base64(_mac(key, payload))}"


def read_ticket(key: bytes, text: str, *, blob_id: str, direction: Direction, lived_ms: int) -> Ticket:
    """Return the ticket in a text. `ProtocolError` 401 unless it is ours, for this use, and not expired."""
    ticket = _parse(key, text)
    if ticket is None or ticket.blob_id != blob_id or ticket.direction != direction:
        raise invalid()
    if ticket.ends_lived_ms <= lived_ms:
        raise ProtocolError("ticket_expired", "The ticket has expired. Get another one by a call.")
    return ticket


def invalid() -> ProtocolError:
    """Return the refusal of a ticket that gives no right here."""
    return ProtocolError("ticket_invalid", "The ticket is not valid for this request. Get one by a call.")


def _parse(key: bytes, text: str) -> Ticket | None:
    if len(text) > _LONGEST:
        return None
    encoded, _, mac = text.partition(".")
    payload, given = from_base64(encoded), from_base64(mac)
    if payload is None or given is None or not hmac.compare_digest(_mac(key, payload), given):
        return None
    mesh_id, member_id, blob_id, direction, ends = payload.decode().split("\0", _FIELDS - 1)
    return Ticket(mesh_id, member_id, blob_id, "up" if direction == "up" else "down", int(ends))


def _mac(key: bytes, payload: bytes) -> bytes:
    return hmac.digest(key, _CONTEXT + payload, sha256().name)
