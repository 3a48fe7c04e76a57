"""Receipts: how far a message has come at a recipient (docs/spec/protocol.md, Receipts).

A receipt travels in the sealed content of a message of its own. Receipts of one message are merged by taking
the furthest state, so one that comes twice, late or out of order changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, Final

from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.ids import CLIENT_MESSAGE_ID, check_session

# The most receipts in one message.
MAX_RECEIPTS: Final = 2000
# The last millisecond of the year 9999.
_LAST_MS: Final = 253_402_300_799_999


class ReceiptState(IntEnum):
    """A state of a message at a recipient, in their order. A message may skip some of them."""

    DELIVERED = 1
    NOTIFIED = 2
    SHOWN = 3
    ACKED = 4

    @property
    def word(self) -> str:
        """The state as the API spells it."""
        return self.name.lower()


# States that a sender may ask to be told. It is told the states before as well.
WISHES: Final[Mapping[str, ReceiptState | None]] = {
    "none": None,
    "delivered": ReceiptState.DELIVERED,
    "shown": ReceiptState.SHOWN,
    "acked": ReceiptState.ACKED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The states of one message at one recipient.

    Times are Unix milliseconds of the recipient's wall clock, for display only. `session` is the session that
    brought the message into its furthest state.
    """

    client_message_id: str
    delivered_at: int | None = None
    notified_at: int | None = None
    shown_at: int | None = None
    acked_at: int | None = None
    session: str | None = None

    @property
    def state(self) -> ReceiptState | None:
        """The furthest state, None without any."""
        return max((state for state in ReceiptState if self.at(state) is not None), default=None)

    def at(self, state: ReceiptState) -> int | None:
        """Return the time of a state."""
        found: int | None = getattr(self, f"{state.word}_at")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the receipt as it is sealed."""
        given = {field.name: getattr(self, field.name) for field in fields(self)[1:]}
        return {"id": self.client_message_id} | {k: v for k, v in given.items() if v is not None}


def merge(one: Receipt, other: Receipt) -> Receipt:
    """Return what both receipts of a message tell: every state that one of them has, at its earliest time."""

    def claim(receipt: Receipt) -> tuple[int, str]:
        return receipt.state or 0, receipt.session or ""

    times = {}
    for state in ReceiptState:
        found = [at for at in (one.at(state), other.at(state)) if at is not None]
        times[f"{state.word}_at"] = min(found, default=None)
    return Receipt(
        client_message_id=one.client_message_id, session=max(one, other, key=claim).session, **times
    )


def parse_wish(value: object) -> ReceiptState | None:
    """Return the receipt that a sealed message asks for. One that is not known counts as none."""
    return WISHES.get(value) if isinstance(value, str) else None


def parse_receipts(value: object) -> tuple[Receipt, ...]:
    """Return sealed receipts; None is none. `ProtocolError` invalid_content for any other value."""
    if value is None:
        return ()
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_RECEIPTS:
        raise _invalid(f"They are a list of 1 to {MAX_RECEIPTS}.")
    return tuple(map(_parse, value))


def _parse(value: object) -> Receipt:
    if not isinstance(value, dict):
        raise _invalid("A receipt is an object.")
    message, session = value.get("id"), value.get("session")
    if not isinstance(message, str) or CLIENT_MESSAGE_ID.fullmatch(message) is None:
        raise _invalid("A receipt names the client_message_id of a message.")
    if session is not None:
        try:
            check_session(session)
        except ProtocolError as error:
            raise _invalid("The name of a session is not valid.") from error
    times = {f"{state.word}_at": _time(value.get(f"{state.word}_at")) for state in ReceiptState}
    found = Receipt(client_message_id=message, session=session, **times)
    if found.state is None:
        raise _invalid("A receipt has the time of a state.")
    return found


def _time(value: object) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= _LAST_MS:
        raise _invalid("A time is in Unix milliseconds.")
    return value


def _invalid(reason: str) -> ProtocolError:
    return ProtocolError("invalid_content", f"The receipts of the body are not valid. {reason}")
