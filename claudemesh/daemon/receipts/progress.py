"""States of a send: one state of the whole send, and a sentence about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from claudemesh.daemon.outbox.states import Status
from claudemesh.daemon.outbox.told import Told
from claudemesh.protocol.receipts import ReceiptState

QUEUED: Final = "queued"
ACCEPTED: Final = "accepted"
_ENDED: Final = frozenset({Status.DEAD.value, Status.ABORTED.value})
# States in their order. Those of a send that has ended are not among them.
ORDER: Final = (QUEUED, ACCEPTED, *(state.word for state in ReceiptState))
# States that a caller can wait for.
WAITED_FOR: Final = ORDER[1:]


def state_of(row: Mapping[str, Any], told: Told) -> str:
    """Return the furthest state of a send: at this host, at the broker, or at any recipient.

    A local send is in the inbox of this host. A receipt may arrive before the broker's answer. A send that
    has ended is as its row says, unless a recipient has it all the same.
    """
    status: str = row["status"]
    if told.furthest is not None:
        return told.furthest.word
    if row["local"]:
        return ReceiptState.DELIVERED.word
    if status in _ENDED:
        return status
    return ACCEPTED if status == Status.DONE else QUEUED


def has_reached(state: str, wanted: str) -> bool:
    """Whether a send needs no more waiting: its state is the wanted one or further, or it has ended."""
    return state in _ENDED or ORDER.index(state) >= ORDER.index(wanted)


def counts_of(told: Told) -> Mapping[str, int]:
    """Return the number of recipients that have reached each state, those with a further one included."""
    counts = told.counts or {}
    return {
        state.word: sum(count for reached, count in counts.items() if reached >= state)
        for state in ReceiptState
    }


def sentence(row: Mapping[str, Any], state: str, told: Told, absence: str | None) -> str:
    """Return how far a send has come, in words. `absence` tells that the host of the recipient is offline."""
    if state in _ENDED:
        return f"{state}: {row['last_error'] or 'an operator retired it'}"
    if state == QUEUED:
        return "queued on this host; the broker does not have it yet" + _clause(row["last_error"])
    if row["local"] and not told.recipients:
        return "delivered on this host"
    if state == ACCEPTED:
        asked = "it asked for no receipt" if row["receipt"] is None else None
        clauses = [clause for clause in (asked, absence) if clause] or ["no recipient has told more"]
        return "; ".join(("accepted by the broker", *clauses))
    if len(told.recipients) == 1:
        [one] = told.recipients
        by = f" in session {one.receipt.session}" if one.receipt.session else ""
        if row["local"]:
            return f"{state} on this host{by}"
        more = f"; {absence}" if absence and state == ReceiptState.DELIVERED.word else ""
        return f"{state} at {one.name}{by}{more}"
    counts = ", ".join(f"{name} at {count}" for name, count in counts_of(told).items() if count)
    return f"{counts} recipients"


def _clause(text: str | None) -> str:
    return f" ({text})" if text else ""
