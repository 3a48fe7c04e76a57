"""Plain data that submitter, drain and store of the outbox exchange."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from msgspec import Struct, field

from claudemesh.daemon.outbox.states import Answer, KnownRow, Status
from claudemesh.protocol.receipts import ReceiptState


class NewRow(NamedTuple):
    """A send that may be inserted: its envelope, its priority, and the wall time for display.

    The envelope is frozen, unless the row waits for the key of `waiting_topic`: it is sealed then. `receipt`
    is what the send asks for, and `recipient` the key of the member that tells it, None for a topic or queue.
    """

    id: str
    payload: bytes
    priority: int
    now_ms: int
    waiting_topic: str | None = None
    receipt: ReceiptState | None = None
    recipient: str | None = None
    # The message's id in the inbox of this host, for a local send: it is there already.
    local: str | None = None


class Submission(NamedTuple):
    """A send to be accepted: its id, its fingerprint, and the action when the id is new.

    `row` is inserted when the id is unknown; without a row, `refusal` is the answer. `same_as` gets a known
    row with another fingerprint, and returns whether its envelope is the same send to an earlier key.
    """

    client_message_id: str
    request_fingerprint: bytes
    row: NewRow | None
    refusal: Answer | None = None
    same_as: Callable[[KnownRow, bytes], bool] | None = None


class TakenRow(NamedTuple):
    """A row that is `inflight` on disk and may leave now."""

    id: str
    client_message_id: str
    payload: bytes
    attempts: int


class Settlement(NamedTuple):
    """The outcome of a row in flight. `due_lived_ms` is the end of a pending row's wait, 0 without a wait.

    A pending row with a `waiting_topic` is to be sealed with the present key of that topic first.
    """

    row: TakenRow
    status: Literal[Status.DONE, Status.DEAD, Status.PENDING]
    error: str | None = None
    due_lived_ms: int = 0
    broker_message_id: str | None = None
    history_id: int | None = None
    duplicate: bool = False
    waiting_topic: str | None = None


class Expired(Struct, frozen=True):
    """A row that was made dead because of its age."""

    id: str
    client_message_id: str


class Now(Struct, frozen=True):
    """The time of a transaction: wall time for display, lived time for ages and waits.

    `broker_ms` is the broker's time, None before the first handshake.
    """

    wall_ms: int
    lived_ms: int
    broker_ms: int | None = None


class Totals(Struct, frozen=True):
    """Number of rows by status, and the payload bytes not yet accepted; also the difference of two totals."""

    pending: int = 0
    inflight: int = 0
    dead: int = 0
    queued_bytes: int = 0

    def plus(self, other: Totals) -> Totals:
        """Return the sum."""
        return Totals(
            self.pending + other.pending,
            self.inflight + other.inflight,
            self.dead + other.dead,
            self.queued_bytes + other.queued_bytes,
        )


class Turn(Struct, frozen=True):
    """The result of one transaction.

    `refused` are rows that died unsent because the broker takes no body of their size. `next_due` is the
    lived time at which the next waiting row is ready. It is None when no row waits, or when ready rows are
    left.
    """

    answers: Sequence[Answer]
    taken: Sequence[TakenRow]
    refused: Sequence[Settlement] = ()
    next_due: int | None = None
    change: Totals = field(default=Totals())
