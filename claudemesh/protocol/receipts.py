"""Receipts: how far a message has come at a recipient (docs/spec/protocol.md, Receipts).

A receipt travels in the sealed content of a message of its own. Receipts of one message are merged by taking
the furthest state, so one that comes twice, late or out of order changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import Any, Final

from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.ids import CLIENT_MESSAGE_ID, check_session

# The beginning of the ids of messages of receipts. Another message may have such an id too.
RECEIPT_ID: Final = "receipt:"
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


# States into which a session brings a message.
_BY_SESSIONS: Final = tuple(ReceiptState)[1:]
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

    Times are Unix milliseconds of the recipient's wall clock, for display only. Each state but `delivered`
    may name the session that brought the message into it.
    """

    client_message_id: str
    delivered_at: int | None = None
    notified_at: int | None = None
    shown_at: int | None = None
    acked_at: int | None = None
    notified_by: str | None = None
    shown_by: str | None = None
    acked_by: str | None = None

    @property
    def state(self) -> ReceiptState | None:
        """The furthest state, None without any."""
        return max((state for state in ReceiptState if self.at(state) is not None), default=None)

    def at(self, state: ReceiptState) -> int | None:
        """Return the time of a state."""
        found: int | None = getattr(self, f"{state.word}_at")
        return found

    def by(self, state: ReceiptState) -> str | None:
        """Return the session that brought the message into a state."""
        found: str | None = getattr(self, f"{state.word}_by", None)
        return found

    @property
    def session(self) -> str | None:
        """The session of the furthest state."""
        return None if self.state is None else self.by(self.state)

    def without_sessions(self) -> Receipt:
        """Return the receipt without the names of sessions."""
        return replace(self, notified_by=None, shown_by=None, acked_by=None)

    def to_dict(self) -> dict[str, Any]:
        """Return the receipt as it is sealed. The session of the furthest state has the name `session`."""
        given = {field.name: getattr(self, field.name) for field in fields(self)[1:]}
        if self.state is not None:
            given.pop(f"{self.state.word}_by", None)
        given["session"] = self.session
        return {"id": self.client_message_id} | {k: v for k, v in given.items() if v is not None}


def merge(one: Receipt, other: Receipt) -> Receipt:
    """Return what both receipts of a message tell: every state that one of them has, at its earliest time.

    The session of a state is the one of that time.
    """
    found: dict[str, Any] = {}
    for state in ReceiptState:
        told = [(at, one_of.by(state)) for one_of in (one, other) if (at := one_of.at(state)) is not None]
        # Of equal times, one with a session.
        at, by = min(told, key=lambda entry: (entry[0], entry[1] is None, entry[1]), default=(None, None))
        found[f"{state.word}_at"] = at
        if state in _BY_SESSIONS:
            found[f"{state.word}_by"] = by
    return Receipt(client_message_id=one.client_message_id, **found)


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
    message = value.get("id")
    if not isinstance(message, str) or CLIENT_MESSAGE_ID.fullmatch(message) is None:
        raise _invalid("A receipt names the client_message_id of a message.")
    times: dict[str, Any] = {
        f"{state.word}_at": _time(value.get(f"{state.word}_at")) for state in ReceiptState
    }
    found = Receipt(client_message_id=message, **times)
    if found.state is None:
        raise _invalid("A receipt has the time of a state.")
    names = {state: _session(value.get(f"{state.word}_by")) for state in _BY_SESSIONS}
    names[found.state] = _session(value.get("session"))
    told: dict[str, Any] = {
        f"{state.word}_by": names[state] for state in _BY_SESSIONS if found.at(state) is not None
    }
    return replace(found, **told)


def _session(value: object) -> str | None:
    if value is None:
        return None
    try:
        return check_session(value)
    except ProtocolError as error:
        raise _invalid("The name of a session is not valid.") from error


def _time(value: object) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= _LAST_MS:
        raise _invalid("A time is in Unix milliseconds.")
    return value


def _invalid(reason: str) -> ProtocolError:
    return ProtocolError("invalid_content", f"The receipts of the body are not valid. {reason}")
