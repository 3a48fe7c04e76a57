"""JSON of the routes for sends in the outbox, as msgspec Structs (docs/spec/daemon.md, Outbox)."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from claudemesh.daemon.api.schemas import Body, ClientMessageId, Moment, Priority

Status = Literal["pending", "inflight", "done", "dead", "aborted"]
_Reached = Literal["delivered", "notified", "shown", "acked"]


class RequeueBody(Body):
    """The new id of a message that is sent again (`auto` or none: a ULID), and changes of its content."""

    new_client_message_id: ClientMessageId | None = None
    patch: dict[str, Any] | None = None


class OutboxItem(Struct):
    """A send, without its payload. It has destination and priority as long as the payload is kept.

    `next_attempt_at` is the time of the next retry, null when none is scheduled. `waiting_for` is "topic_key"
    while a post or job waits for the key of its topic. `receipt` is the furthest state that the recipients
    were asked to tell. `local`: it went into the inbox of this host, and the broker knows nothing of it.
    """

    id: str
    client_message_id: str
    request_fingerprint: str
    enqueued_at: Moment
    attempts: int
    next_attempt_at: Moment | None
    status: Status
    last_error: str | None
    delivered_at: Moment | None
    broker_message_id: str | None
    history_id: int | None
    aborted_at: Moment | None
    aborted_by: str | None
    superseded_by: str | None
    waiting_for: Literal["topic_key"] | None
    receipt: Literal["delivered", "shown", "acked"] | None
    local: bool
    destination_kind: Literal["dm", "topic", "queue"] | UnsetType = UNSET
    destination_ref: str | UnsetType = UNSET
    priority: Priority | UnsetType = UNSET
    reply_to_id: str | UnsetType | None = UNSET


class OutboxPage(Struct):
    """Sends; pass `next` as `after` to get the next page."""

    items: list[OutboxItem]
    next: str | None


class RecipientItem(Struct):
    """The states of a send at one recipient, as it has told them. The times are those of its clock.

    `notified_by`, `shown_by` and `acked_by` are the recipient's sessions that brought the message into these
    states, and `session` the one of the furthest state.
    """

    member_id: str
    name: str
    state: _Reached
    delivered_at: Moment | None
    notified_at: Moment | None
    shown_at: Moment | None
    acked_at: Moment | None
    notified_by: str | None
    shown_by: str | None
    acked_by: str | None
    session: str | None


class ReachedCounts(Struct):
    """The number of recipients that have reached each state."""

    delivered: int
    notified: int
    shown: int
    acked: int


class OutboxRow(OutboxItem, kw_only=True):
    """A send, its states, and the chain of sends that replaced it, in order.

    `state` is the furthest state at any recipient, and `detail` says it in words. At most 500 recipients are
    listed.
    """

    state: Literal["queued", "accepted", "delivered", "notified", "shown", "acked", "dead", "aborted"]
    detail: str
    counts: ReachedCounts
    recipients: list[RecipientItem]
    chain: list[OutboxItem]


class Requeued(Struct):
    """Queued again (`id` is the new row, `aborted` the old), or done, because the broker had it already."""

    status: Literal["queued", "done"]
    id: str
    client_message_id: str
    aborted: str | UnsetType = UNSET
    duplicate: bool | UnsetType = UNSET
    broker_message_id: str | UnsetType = UNSET
    history_id: int | UnsetType = UNSET


class Pruned(Struct):
    """The number of payloads that were deleted, and their size in bytes."""

    pruned: int
    freed_bytes: int


class Dropped(Struct):
    """The row is aborted for good."""

    status: Literal["aborted"]
    id: str
    superseded_by: str | None
