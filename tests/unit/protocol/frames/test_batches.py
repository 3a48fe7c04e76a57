"""Frames with several items: each is judged by itself (docs/spec/protocol.md, Frames with several items)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.frames import (
    Deliver,
    Delivers,
    Send,
    SendResult,
    SendResults,
    Sends,
    batches_of,
    decode_frame,
    deliver_tail,
    encode_delivers,
    encode_frame,
    encode_send_results,
    encode_sends,
)
from claudemesh.protocol.wire import BATCH_BYTES, BATCH_ITEMS
from tests.support.envelopes import ULID_TEXT, build
from tests.support.frames import ENVELOPE, SENDER

FROZEN = build().encode()
GOOD = {"id": "row-1", "envelope": ENVELOPE}


def sends(text: str | bytes) -> Sends:
    frame = decode_frame(text)
    assert isinstance(frame, Sends)
    return frame


def batch(*items: object) -> str:
    return json.dumps({"type": "sends", "items": items}, separators=(",", ":"))


def test_a_batch_of_each_kind_holds_what_its_single_frames_hold() -> None:
    rows = [("01J" + "A" * 23, FROZEN), (ULID_TEXT, build(client_message_id='a"b').encode())]
    assert sends(encode_sends(rows)).items == tuple(Send(name, json.loads(raw)) for name, raw in rows)
    told = encode_send_results([(1, 201, {"history_id": 5}), ("b", 429, {"error": "rate_limited"})])
    results = (SendResult(1, 201, {"history_id": 5}), SendResult("b", 429, {"error": "rate_limited"}))
    assert decode_frame(told) == SendResults(results)
    tail = deliver_tail(
        broker_message_id=ULID_TEXT, history_id=9, sender=SENDER, accepted_at=7, envelope=FROZEN
    )
    delivers = tuple(Deliver(number, ULID_TEXT, 9, SENDER, 7, ENVELOPE) for number in (4, 5))
    assert decode_frame(encode_delivers([(4, tail), (5, tail)])) == Delivers(delivers)


@pytest.mark.parametrize(
    "envelope",
    [
        "5",
        "[]",
        '"x"',
        "null",
        '{"a":1,"a":2}',
        '{"a":{"b":1,"b":1}}',
        "[" * 65 + "]" * 65,
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_wrong_envelope_is_refused_alone(envelope: str, place: int) -> None:
    """Also one that is JSON and not strict: the envelopes beside it are taken."""
    frozen = [FROZEN.decode()] * 2
    frozen.insert(place, envelope)
    items = ",".join(f'{{"id":{number},"envelope":{text}}}' for number, text in enumerate(frozen))
    frame = sends(f'{{"type":"sends","items":[{items}]}}')
    assert [item.envelope for item in frame.items] == [ENVELOPE] * 2
    assert [(refused.id, refused.error.code) for refused in frame.refused] == [(place, "invalid_envelope")]


@pytest.mark.parametrize("wrong", [None, True, -1, 2**63, 1.5, "", "x" * 65, "a\n", [], {}])
def test_an_item_without_a_valid_id_is_refused_alone(wrong: object) -> None:
    frame = sends(batch({**GOOD, "id": wrong}, GOOD))
    assert frame.items == (Send("row-1", ENVELOPE),)
    assert [(refused.id, refused.error.code) for refused in frame.refused] == [(None, "invalid_frame")]


@pytest.mark.parametrize("layout", [{}, {"indent": 1}, {"separators": (", ", ":")}, {"sort_keys": True}])
def test_the_layout_of_a_batch_does_not_matter(layout: dict[str, object]) -> None:
    """White space, further fields and another order of the fields."""
    value = {"type": "sends", "items": [{**GOOD, "more": {"a": 1}}, GOOD, {"id": 2, "envelope": 5}, "x"]}
    frame = sends(json.dumps(value, **layout))  # type: ignore[arg-type]
    assert frame.items == (Send("row-1", ENVELOPE),) * 2
    assert [(refused.id, refused.error.code) for refused in frame.refused] == [
        (2, "invalid_envelope"),
        (None, "invalid_frame"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"sends","items":[{"id":1,"id":2,"envelope":{}}]}',
        '{"type":"sends","items":[{"id":1,"envelope":{},"envelope":{}}]}',
        '{"type":"sends","items":[{"id":1,"envelope":{}}],"items":[]}',
        '{"type":"sends","items":[{"id":1,"envelope":{}}],"type":"sends"}',
        '{"type":"sends","items":[{"id":1,"envelope":{"a":NaN}}]}',
        '{"type":"sends","items":[{"id":1,"envelope":{"a":"\\ud800"}}]}',
        '{"type":"sends","items":[{"id":1,"envelope":{}}]',
        '{"type":"sends","items":[{"id":1,"envelope":' + "[" * 100_000 + "]" * 100_000 + "}]}",
        batch(*[GOOD] * (BATCH_ITEMS + 1)),
        batch(),
    ],
)
def test_a_batch_that_is_no_strict_json_is_refused_as_a_whole(text: str) -> None:
    """A field that stands twice outside of an envelope, too many items, or no JSON at all."""
    with pytest.raises(ProtocolError) as caught:
        decode_frame(text)
    assert caught.value.code == "invalid_frame"


def test_a_wrong_result_or_delivery_is_skipped_alone() -> None:
    """A daemon takes the others."""
    results = json.dumps(
        {"type": "send_results", "items": [{"id": 1, "status": "x"}, {"id": 2, "status": 201}]}
    )
    decoded = decode_frame(results)
    assert isinstance(decoded, SendResults)
    assert decoded.items == (SendResult(2, 201, {}),)
    assert [refused.id for refused in decoded.refused] == [1]
    good = json.loads(encode_frame(Deliver(4, ULID_TEXT, 9, SENDER, 7, ENVELOPE)))
    delivered = decode_frame(json.dumps({"type": "delivers", "items": [{**good, "history_id": -1}, good]}))
    assert isinstance(delivered, Delivers)
    assert [item.delivery_id for item in delivered.items] == [4]
    assert [refused.error.fields["field"] for refused in delivered.refused] == ["history_id"]


@given(st.lists(st.integers(1, BATCH_BYTES * 2), max_size=100), st.integers(1, BATCH_ITEMS))
def test_items_are_cut_into_frames_within_the_bounds(sizes: list[int], most: int) -> None:
    """In order, none empty; only a frame of one item is larger than the bound."""
    cut = list(batches_of(sizes, lambda size: size, most))
    assert [size for each in cut for size in each] == sizes
    for each in cut:
        assert 1 <= len(each) <= most
        assert len(each) == 1 or sum(each) <= BATCH_BYTES
