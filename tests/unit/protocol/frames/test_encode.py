from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.protocol import frames
from claudemesh.protocol.envelope import Envelope
from claudemesh.protocol.frames import (
    FRAME_TYPES,
    Deliver,
    DeliverySender,
    Event,
    Send,
    SendResult,
    decode_frame,
    deliver_tail,
    encode_deliver,
    encode_event,
    encode_frame,
    encode_send,
    encode_send_result,
)
from tests.support.frames import (
    BY_KIND,
    ENVELOPES,
    FRAME_ID,
    NAME,
    NUMBER,
    OBJECT,
    RESULT_FIELDS,
    SENDERS,
    TIME_MS,
    ULID,
)


def test_every_frame_type_has_a_strategy() -> None:
    """The property below covers all types."""
    assert BY_KIND.keys() == FRAME_TYPES


@pytest.mark.parametrize("kind", sorted(FRAME_TYPES))
@given(st.data())
def test_decoding_returns_the_encoded_frame(kind: str, data: st.DataObject) -> None:
    """For every valid frame of every type, as text and as bytes."""
    frame: frames.Frame = data.draw(BY_KIND[kind])
    text = encode_frame(frame)
    assert decode_frame(text) == frame
    assert decode_frame(text.encode()) == frame


@given(ULID, ENVELOPES)
def test_send_around_a_frozen_envelope(row_id: str, envelope: Envelope) -> None:
    """The daemon sends the stored bytes as they are."""
    assert decode_frame(encode_send(row_id, envelope.encode())) == Send(row_id, envelope.to_dict())


@given(FRAME_ID, st.integers(100, 599), RESULT_FIELDS)
def test_send_result_from_its_fields(request_id: int | str, status: int, fields: dict[str, Any]) -> None:
    """The fields of the status stand beside the id."""
    text = encode_send_result(request_id, status, fields)
    assert decode_frame(text) == SendResult(request_id, status, fields)


@given(st.lists(NUMBER, min_size=1, max_size=3), ULID, NUMBER, SENDERS, TIME_MS, ENVELOPES)
def test_deliver_frames_of_one_message_share_their_tail(
    delivery_ids: list[int],
    broker_message_id: str,
    history_id: int,
    sender: DeliverySender,
    at_ms: int,
    envelope: Envelope,
) -> None:
    """One tail, one frame for each recipient."""
    tail = deliver_tail(
        broker_message_id=broker_message_id,
        history_id=history_id,
        sender=sender,
        accepted_at=at_ms,
        envelope=envelope.encode(),
    )
    for delivery_id in delivery_ids:
        expected = Deliver(delivery_id, broker_message_id, history_id, sender, at_ms, envelope.to_dict())
        assert decode_frame(encode_deliver(delivery_id, tail)) == expected


@given(NAME, OBJECT)
def test_event_from_its_data(event: str, data: dict[str, Any]) -> None:
    """Events are encoded once for all connections of a mesh."""
    assert decode_frame(encode_event(event, data)) == Event(event, data)
