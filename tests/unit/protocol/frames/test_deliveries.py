"""The quick reader of deliveries agrees with the parser of JSON for every text that it takes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.protocol.envelope import Envelope
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.frames import (
    Deliver,
    Delivers,
    decode_frame,
    deliver_tail,
    deliveries_of,
    encode_deliver,
    encode_delivers,
)
from claudemesh.protocol.frozen import parse_frozen
from claudemesh.protocol.wire import BATCH_ITEMS
from tests.support.envelopes import ULID_TEXT, build
from tests.support.frames import SENDER
from tests.support.values import replace

FROZEN = build(mentions=()).encode()
MENTIONING = build().encode()


def tail(envelope: bytes = FROZEN, **fields: Any) -> str:
    values = {"history_id": 9, "accepted_at": 1_700_000_000_000, "broker_message_id": ULID_TEXT, **fields}
    return deliver_tail(sender=SENDER, envelope=envelope, **values)


TEXTS = [
    encode_deliver(4, tail()),
    encode_delivers([(4, tail())]),
    encode_delivers([(number, tail(history_id=number)) for number in range(3)]),
]


def with_parsed_envelopes(text: str) -> Deliver | Delivers | None:
    """Return the frame of the parser of JSON; None for a text that it refuses, in part or as a whole."""
    try:
        frame = decode_frame(text)
        if isinstance(frame, Deliver):
            return replace(frame, envelope=Envelope.parse(frame.envelope))
        if not isinstance(frame, Delivers) or frame.refused:
            return None
        return Delivers(tuple(replace(one, envelope=Envelope.parse(one.envelope)) for one in frame.items))
    except ProtocolError:
        return None


@pytest.mark.parametrize("text", TEXTS)
def test_deliveries_of_frozen_envelopes_are_what_the_parser_of_json_reads(text: str) -> None:
    found = deliveries_of(text)
    assert found is not None
    assert found == with_parsed_envelopes(text)
    assert found.to_dict() == decode_frame(text).to_dict()


def test_a_parsed_envelope_is_written_as_it_came() -> None:
    """A body whose key is not here is kept as its envelope."""
    found = deliveries_of(TEXTS[0])
    assert isinstance(found, Deliver)
    assert isinstance(found.envelope, Envelope)
    assert found.envelope == parse_frozen(FROZEN)
    assert found.envelope.encode() == FROZEN


@pytest.mark.parametrize(
    "text",
    [
        encode_deliver(4, tail(MENTIONING)),
        encode_delivers([(4, tail()), (5, tail(MENTIONING))]),
        encode_delivers([(number, tail()) for number in range(BATCH_ITEMS + 1)]),
        encode_delivers([]),
        encode_deliver(10**18, tail()),
        TEXTS[0] + " ",
        TEXTS[1][:-1],
    ],
)
def test_other_texts_are_left_to_the_parser_of_json(text: str) -> None:
    """Among them envelopes with mentions, and more items than a frame may have."""
    assert deliveries_of(text) is None


@given(st.data())
def test_a_changed_text_is_read_as_json_reads_it_or_left(data: st.DataObject) -> None:
    """Any character replaced, added or taken away, and any part written twice."""
    text = data.draw(st.sampled_from(TEXTS))
    at = data.draw(st.integers(0, len(text) - 1))
    piece = data.draw(
        st.sampled_from(
            ["", " ", "=", '"', "\\", "{", "}", ",", "]", "0", "A", "\u00e9", text[:at], text[at:]]
        )
    )
    changed = text[:at] + piece + text[at + data.draw(st.integers(0, 3)) :]
    found = deliveries_of(changed)
    assert found is None or found == with_parsed_envelopes(changed)
