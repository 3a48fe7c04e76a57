"""Tickets: valid for their own use alone, and until their end (docs/spec/protocol.md, Blobs)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.broker.blobs.tickets import Ticket, make_ticket, read_ticket
from claudemesh.protocol.errors import ProtocolError

KEY = bytes(range(32))
TICKET = Ticket("mesh", "member", "a" * 32, "up", 1000)


def code(
    key: bytes, text: str, *, blob_id: str = "a" * 32, direction: str = "up", lived_ms: int = 999
) -> str:
    """The code with which a ticket is refused, or an empty text."""
    try:
        found = read_ticket(key, text, blob_id=blob_id, direction=direction, lived_ms=lived_ms)  # type: ignore[arg-type]
    except ProtocolError as error:
        assert error.status == 401
        return error.code
    assert found == TICKET
    return ""


def test_a_ticket_is_valid_until_its_end() -> None:
    text = make_ticket(KEY, TICKET)
    assert code(KEY, text) == ""
    assert code(KEY, text, lived_ms=1000) == "ticket_expired"


@pytest.mark.parametrize("changed", [{"blob_id": "b" * 32}, {"direction": "down"}])
def test_a_ticket_is_for_one_blob_and_one_direction(changed: dict[str, str]) -> None:
    assert code(KEY, make_ticket(KEY, TICKET), **changed) == "ticket_invalid"  # type: ignore[arg-type]


def test_a_ticket_of_another_key_is_invalid() -> None:
    assert code(bytes(32), make_ticket(KEY, TICKET)) == "ticket_invalid"


@given(st.text(max_size=700))
def test_any_other_text_is_refused(text: str) -> None:
    assert code(KEY, text) == "ticket_invalid"


@given(st.data())
def test_a_changed_ticket_is_refused(data: st.DataObject) -> None:
    text = make_ticket(KEY, TICKET)
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(codec="ascii").filter(lambda char: char != text[at]))
    assert code(KEY, text[:at] + other + text[at + 1 :]) == "ticket_invalid"
