"""Arguments and rows of the accept function (store/postgres/functions), and of the statement for one message.

Crash story: each is one statement in a transaction of its own. Before its commit none of the four side
effects of any send exists, after it all of them. When the connection ends in between, the outcome is unknown
and no send is answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from claudemesh.broker.store.postgres.values import message_ulid, message_uuid
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
from claudemesh.protocol.topic_keys import DEFAULT_KEY_EPOCHS


def arguments(sends: Sequence[NewSend], now_ms: int) -> tuple[object, ...]:
    """Return the arguments of the accept function. `ValueError`: a value does not fit its column."""
    return (
        now_ms,
        [send.key.mesh_id for send in sends],
        [send.key.sender_member_id for send in sends],
        [send.key.client_message_id for send in sends],
        [message_uuid(send.broker_message_id) for send in sends],
        [send.request_fingerprint for send in sends],
        [send.destination_kind for send in sends],
        [send.destination_ref for send in sends],
        [send.priority for send in sends],
        [send.envelope for send in sends],
        [send.key_epoch for send in sends],
        DEFAULT_KEY_EPOCHS,
    )


def arguments_of_one(send: NewSend, now_ms: int) -> tuple[object, ...] | None:
    """Return the arguments of the statement for one direct message; None: the send is another one."""
    if send.destination_kind != "dm" or send.key_epoch is not None:
        return None
    return (
        now_ms,
        send.key.mesh_id,
        send.key.sender_member_id,
        send.key.client_message_id,
        message_uuid(send.broker_message_id),
        send.request_fingerprint,
        send.destination_kind,
        send.destination_ref,
        send.priority,
        send.envelope,
    )


def outcomes_of(rows: Sequence[Any], sends: Sequence[NewSend], now_ms: int) -> Sequence[AcceptOutcome]:
    """Return each send's outcome, in the order of the sends."""
    found: dict[int, AcceptOutcome] = {row[0]: _outcome(row, now_ms) for row in rows}
    return [found[number] for number in range(1, len(sends) + 1)]


def _outcome(row: Any, now_ms: int) -> AcceptOutcome:
    if row[1] == "accepted":
        deliveries = zip(row[10] or (), row[11] or (), strict=True)
        owed = tuple(NewDelivery(delivery_id, str(member_id)) for delivery_id, member_id in deliveries)
        return Accepted(row[4], now_ms, owed)
    if row[1] == "existing":
        return Existing(DedupeRow(message_ulid(row[3]), *row[4:10]))
    return Refused(row[2])


def dedupe_of(row: Any) -> tuple[SendKey, DedupeRow]:
    """Return a dedupe row and its key."""
    key = SendKey(str(row[0]), str(row[1]), row[2])
    return key, DedupeRow(message_ulid(row[3]), *row[4:10])


def follow(first: NewSend, outcome: AcceptOutcome, later: NewSend) -> AcceptOutcome | None:
    """Decide a send by the outcome of an earlier one of the same batch and key; None: it has to be tried."""
    if isinstance(outcome, Existing):
        return outcome
    if isinstance(outcome, Accepted):
        row = DedupeRow(
            first.broker_message_id,
            outcome.history_id,
            first.request_fingerprint,
            first.destination_kind,
            first.destination_ref,
            outcome.accepted_at,
        )
        return Existing(row)
    same = (first.destination_kind, first.destination_ref) == (later.destination_kind, later.destination_ref)
    return outcome if same and isinstance(outcome, Refused) else None
