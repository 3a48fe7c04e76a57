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
_receipts = st.builds(
    Receipt,
    client_message_id=st.just("m"),
    delivered_at=_times,
    notified_at=_times,
    shown_at=_times,
    acked_at=_times,
    session=st.none() | st.sampled_from(["api", "web"]),
)
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
