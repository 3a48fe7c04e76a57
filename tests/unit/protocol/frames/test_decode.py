from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.protocol import frames
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.frames import decode_frame, encode_frame
from tests.support.envelopes import MESH_ID, ULID_TEXT
from tests.support.frames import FRAMES

BY_TYPE: dict[str, dict[str, Any]] = {
    value["type"]: value
    for value in (json.loads(encode_frame(frame)) for frame in FRAMES)
    if "error" not in value
}


def refused(raw: str | bytes) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        decode_frame(raw)
    assert caught.value.code == "invalid_frame"
    assert caught.value.message
    return caught.value


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: type(frame).__name__)
def test_frame_survives_the_wire(frame: frames.Frame) -> None:
    """encode and decode are inverse, for text and for bytes."""
    text = encode_frame(frame)
    assert isinstance(text, str)
    assert decode_frame(text) == frame
    assert decode_frame(text.encode()) == frame


def test_every_type_of_the_page_is_known() -> None:
    """docs/spec/protocol.md, Frames."""
    page = """challenge hello hello_ack feature_negotiation_request feature_negotiation_response send
    sends send_result send_results deliver delivers deliver_ack call reply event error revoked"""
    assert set(frames.FRAME_TYPES) == set(page.split())
    assert BY_TYPE.keys() >= frames.FRAME_TYPES


@pytest.mark.parametrize("kind", sorted(frames.FRAME_TYPES))
def test_unknown_fields_are_ignored(kind: str) -> None:
    """A newer peer may send more fields."""
    value = BY_TYPE[kind]
    expected = decode_frame(json.dumps(value))
    more = decode_frame(json.dumps({**value, "from_the_future": {"a": [1]}}))
    if isinstance(more, frames.SendResult):  # its further fields are kept: they depend on the status
        assert more.fields["from_the_future"] == {"a": [1]}
    else:
        assert more == expected


NO_TEXT: list[object] = [None, 5, True, [], {}, "", "a\n", "x" * 65]
NO_NUMBER: list[object] = [None, "5", True, 1.0, 1.5, -1, 2**63, 2**70, [], {}]
NO_OBJECT: list[object] = [None, [], "x", 5, True]
NO_KEY: list[object] = [*NO_TEXT, "0" * 63, "A" * 64]
NO_UUID: list[object] = [*NO_TEXT, MESH_ID.upper(), ULID_TEXT]
NO_ID: list[object] = [None, True, 1.5, -1, 2**63, "", "x" * 65, "a\0", [], {}]
NO_NAMES: list[object] = [None, "x", {}, [5], [None], ["A"], ["a b"], ["x" * 65], ["a"] * 65]
NO_BATCH: list[object] = [None, "x", 5, True, {}, [], [{}] * 33]
BROKEN: dict[str, dict[str, list[object]]] = {
    "challenge": {
        "nonce": [*NO_TEXT, "A" * 40, "A" * 44, "A" * 42 + "B="],
        "server_time": NO_NUMBER,
        "broker_version": NO_TEXT,
        "protocol": [None, 1, [True], ["1"], [0], [1.0], [1] * 65],
    },
    "hello": {
        "mesh_id": NO_UUID,
        "pubkey": NO_KEY,
        "key_id": [*NO_TEXT, ULID_TEXT, "k_x"],
        "name": [*NO_TEXT, "a b", "@alice"],
        "host_fingerprint": [None, 5, "x", "ab" * 31],
        "daemon_version": NO_TEXT,
        "instance_id": NO_TEXT,
        "ephemeral": [None, 0, 1, "false"],
        "audience": [*NO_TEXT[:-1], "a b", "x" * 256],
        "signature": [*NO_TEXT, "A" * 84, "A" * 88],
    },
    "hello_ack": {
        "member_id": NO_UUID,
        "connection_id": NO_TEXT,
        "mesh": NO_OBJECT,
        "server_time": NO_NUMBER,
        "epoch": NO_TEXT,
    },
    "feature_negotiation_request": {"require": NO_NAMES, "optional": NO_NAMES},
    "feature_negotiation_response": {
        "supported": [*NO_OBJECT, {"A": {}}, {"": {}}, {"x" * 65: {}}, {f"f{n}": {} for n in range(65)}],
        "missing_required": NO_NAMES,
    },
    "send": {"id": NO_ID, "envelope": NO_OBJECT},
    "send_result": {"id": NO_ID, "status": [None, "201", True, 201.0, 99, 600]},
    "deliver": {
        "delivery_id": NO_NUMBER,
        "broker_message_id": [*NO_TEXT, ULID_TEXT.lower()],
        "history_id": NO_NUMBER,
        "sender": NO_OBJECT,
        "accepted_at": NO_NUMBER,
        "envelope": NO_OBJECT,
    },
    **{kind: {"items": NO_BATCH} for kind in ("sends", "send_results", "delivers")},
    "deliver_ack": {"delivery_ids": [None, 5, {}, [None], [True], [1.0], [-1], [2**63], [1] * 4097]},
    "call": {"id": NO_ID, "method": [*NO_TEXT, "Topic", "a.b"], "params": NO_OBJECT},
    "reply": {"id": NO_ID},
    "event": {"event": [*NO_TEXT, "Peer"], "data": NO_OBJECT},
    "error": {"code": NO_TEXT, "message": [None, 5, "", "x" * 4097, "\x1b[2J"], "id": NO_ID[1:]},
    "revoked": {"statement": NO_OBJECT},
    "from_the_future": {"id": NO_ID[1:]},
}


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [(kind, field, value) for kind in BROKEN for field in BROKEN[kind] for value in BROKEN[kind][field]],
)
def test_one_wrong_field_is_named(kind: str, field: str, value: object) -> None:
    """Known fields are validated, and bounded."""
    error = refused(json.dumps({**BY_TYPE[kind], field: value}))
    assert error.fields["field"] == field


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        (kind, field)
        for kind in sorted(frames.FRAME_TYPES)
        for field in BROKEN[kind]
        if (kind, field) not in {("call", "params"), ("event", "data"), ("error", "id")}
    ],
)
def test_missing_field_is_named(kind: str, field: str) -> None:
    """Required fields."""
    value = {name: kept for name, kept in BY_TYPE[kind].items() if name != field}
    assert refused(json.dumps(value)).fields["field"] == field


@pytest.mark.parametrize("field", ["member_id", "name", "pubkey"])
def test_wrong_sender_is_named_by_its_path(field: str) -> None:
    """Nested fields have paths."""
    value = BY_TYPE["deliver"]
    changed = {**value, "sender": {**value["sender"], field: "?"}}
    assert refused(json.dumps(changed)).fields["field"] == f"sender.{field}"


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"ok": 1, "error": {"code": "a", "message": "b"}},
        {"error": None},
        {"error": {"code": "A", "message": "b"}},
        {"error": {"code": "a"}},
        {"error": {"code": "a", "message": 5}},
    ],
)
def test_reply_is_either_ok_or_an_error(answer: dict[str, object]) -> None:
    """{id, ok} or {id, error: {code, message}}."""
    refused(json.dumps({"type": "reply", "id": 1, **answer}))


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "[]",
        "null",
        '"send"',
        "{}",
        '{"type":null}',
        '{"type":5}',
        '{"type":["send"]}',
        '{"type":""}',
        '{"type":"SEND"}',
        '{"type":"' + "x" * 65 + '"}',
        '{"type":"send","type":"call"}',
        '{"type":"event","event":"a","data":NaN}',
        '{"type":"event","event":"\\ud800"}',
        "\ud800",
        b"\xff",
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        '{"type":"event","event":"a","data":' + '{"a":' * 64 + "1" + "}" * 64 + "}",
        encode_frame(FRAMES[0]) + encode_frame(FRAMES[0]),
    ],
)
def test_invalid_texts_are_refused(raw: str | bytes) -> None:
    """One JSON object for each text; no other exception."""
    refused(raw)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(BY_TYPE)), st.data())
def test_any_values_make_a_frame_or_a_refusal(kind: str, data: st.DataObject) -> None:
    """No exception but ProtocolError, for any value in any field."""
    value = dict(BY_TYPE[kind])
    for name in data.draw(st.lists(st.sampled_from(sorted(value)), max_size=3)):
        value[name] = data.draw(JSON)
    try:
        frame = decode_frame(json.dumps(value))
    except ProtocolError as error:
        assert error.code == "invalid_frame"
    else:
        if is_writable(value):
            encode_frame(frame)


def is_writable(value: object) -> bool:
    """Whether a value has a JSON text: integers beyond 64 bits are read in parameters, and never written."""
    try:
        return bool(orjson.dumps(value))
    except TypeError:
        return False


@given(st.binary(max_size=60) | st.text('{}[]":,\\typesendid0123.eE- ', max_size=40))
def test_any_bytes_make_a_frame_or_a_refusal(raw: str | bytes) -> None:
    """No exception but ProtocolError, for any bytes."""
    try:
        decode_frame(raw)
    except ProtocolError as error:
        assert error.code == "invalid_frame"


@given(st.sampled_from([encode_frame(frame).encode() for frame in FRAMES]), st.data())
def test_a_damaged_frame_is_a_frame_or_a_refusal(raw: bytes, data: st.DataObject) -> None:
    """Damaged valid frames reach more of the parsers than random bytes."""
    damaged = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode_frame(bytes(damaged))
    except ProtocolError as error:
        assert error.code == "invalid_frame"


@given(st.text() | st.binary())
def test_announced_raises_nothing(raw: str | bytes) -> None:
    """For any text."""
    assert frames.announced(raw) == ("", None)


def test_announced_returns_the_type_and_id_of_a_wrong_frame() -> None:
    """So the pending call fails at once."""
    assert frames.announced('{"type":"reply","id":"c1","ok":1,"error":2}') == ("reply", "c1")
    assert frames.announced('{"type":"reply","id":{}}') == ("reply", None)
    assert frames.announced('{"type":"from_the_future","id":1}') == ("", None)
