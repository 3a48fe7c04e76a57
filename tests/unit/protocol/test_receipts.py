"""Receipts as data: merged by the furthest state, and bounded where they are read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.receipts import (
    MAX_RECEIPTS,
    Receipt,
    ReceiptState,
    merge,
    parse_receipts,
    parse_wish,
)
from claudemesh.protocol.sealing import Receipting, SealedContext, decode_content, encode_content

_times = st.none() | st.integers(0, 3)
_names = st.none() | st.sampled_from(["api", "web"])
# A time, and the session of that time.
_states = st.tuples(_times, _names).map(lambda one: one if one[0] is not None else (None, None))


def _receipt(delivered_at: int | None, *states: tuple[int | None, str | None]) -> Receipt:
    fields = {f"{word}_at": at for word, (at, _) in zip(_WORDS, states, strict=True)}
    fields |= {f"{word}_by": by for word, (_, by) in zip(_WORDS, states, strict=True)}
    return Receipt(client_message_id="m", delivered_at=delivered_at, **fields)  # type: ignore[arg-type]


_WORDS = ("notified", "shown", "acked")
_receipts = st.builds(_receipt, _times, _states, _states, _states)
CONTEXT = SealedContext("mesh", "a", "b", "id", "dm")


@given(_receipts, _receipts, _receipts)
def test_receipts_merge_to_the_same_in_any_order_and_number(
    one: Receipt, two: Receipt, three: Receipt
) -> None:
    """A receipt that comes twice, late or out of order does no harm."""
    assert merge(one, two) == merge(two, one)
    assert merge(merge(one, two), three) == merge(one, merge(two, three))
    assert merge(one, one) == one
    assert merge(merge(one, two), one) == merge(one, two)


@given(_receipts, _receipts)
def test_a_state_is_never_taken_back_and_never_guessed(one: Receipt, two: Receipt) -> None:
    """The merged receipt has a state exactly if one of both has it."""
    merged = merge(one, two)
    for state in ReceiptState:
        told = one.at(state) is not None or two.at(state) is not None
        assert (merged.at(state) is not None) == told
    assert (merged.state or 0) == max(one.state or 0, two.state or 0)


def test_each_state_names_its_session() -> None:
    """Of the same state told twice, the session of its first time."""
    told = Receipt(client_message_id="m", delivered_at=1, notified_at=2, notified_by="api")
    shown = Receipt(client_message_id="m", delivered_at=1, shown_at=3, shown_by="web")
    later = Receipt(client_message_id="m", delivered_at=1, shown_at=4, shown_by="api", acked_at=5)
    merged = merge(merge(later, told), shown)
    assert [merged.by(state) for state in ReceiptState] == [None, "api", "web", None]
    assert merged.session is None and merge(told, shown).session == "web"


def test_a_receipt_of_an_earlier_version_names_the_session_of_its_furthest_state() -> None:
    """And the name that such a version reads is the same one. A state without a time has no session."""
    [found] = parse_receipts([{"id": "m", "shown_at": 5, "session": "api", "acked_by": "web"}])
    assert found == Receipt(client_message_id="m", shown_at=5, shown_by="api")
    assert found.to_dict() == {"id": "m", "shown_at": 5, "session": "api"}


def test_the_clocks_of_hosts_decide_no_state() -> None:
    """A recipient whose clock is a year behind is merged like any other."""
    year = 365 * 86_400_000
    shown = Receipt(client_message_id="m", delivered_at=2 * year, shown_at=year)
    acked = Receipt(client_message_id="m", delivered_at=2 * year, acked_at=1)
    assert merge(shown, acked).state is ReceiptState.ACKED
    assert merge(acked, shown).state is ReceiptState.ACKED


@given(st.lists(_receipts.filter(lambda one: one.state is not None), min_size=1, max_size=5))
def test_receipts_survive_their_seal(receipts: list[Receipt]) -> None:
    """And they ask for no receipt, also when a message says so."""
    wanted = Receipting(ReceiptState.SHOWN, tuple(receipts))
    raw = encode_content("", b"", CONTEXT, receipting=wanted)
    assert decode_content(raw).receipting == Receipting(None, tuple(receipts))
    forged = raw[:-1] + b',"receipt":"acked"}'
    assert decode_content(forged).receipting.wish is None


def test_a_wish_of_a_later_version_is_no_wish() -> None:
    """The message is read all the same."""
    assert [parse_wish(value) for value in ("shown", "none", "read", 7, None)] == [
        ReceiptState.SHOWN,
        *[None] * 4,
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        "x",
        [],
        [1],
        [{"id": "m"}],
        [{"shown_at": 1}],
        [{"id": "a b", "shown_at": 1}],
        [{"id": "m", "shown_at": -1}],
        [{"id": "m", "shown_at": True}],
        [{"id": "m", "shown_at": 1.5}],
        [{"id": "m", "shown_at": 2**60}],
        [{"id": "m", "shown_at": 1, "session": "A b"}],
        [{"id": "m", "shown_at": 1, "notified_by": "A b"}],
        [{"id": "m", "shown_at": 1}] * (MAX_RECEIPTS + 1),
    ],
)
def test_wrong_receipts_are_refused(wrong: Any) -> None:
    """None of their entries counts."""
    with pytest.raises(ProtocolError) as caught:
        parse_receipts(wrong)
    assert caught.value.code == "invalid_content"


def test_an_unknown_field_of_a_receipt_is_left_out() -> None:
    """A later version may add one."""
    [found] = parse_receipts([{"id": "m", "shown_at": 5, "read_aloud_at": 6}])
    assert found == Receipt(client_message_id="m", shown_at=5)
