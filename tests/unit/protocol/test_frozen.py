"""The quick parser of frozen envelopes agrees with the parser of JSON for every text that it takes."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.protocol.envelope import Envelope, Seal
from claudemesh.protocol.errors import InvalidField
from claudemesh.protocol.frozen import parse_frozen
from tests.support.envelopes import ALICE, BOB, BODY, NONCE, ULID_TEXT, build
from tests.support.frames import CLIENT_MESSAGE_ID

EPOCH = Seal("secretbox", NONCE, ALICE.key_id, key_epoch=7)
SENT: list[Envelope] = [
    build(mentions=()),
    build(mentions=(), reply_to_id=None, priority="now", body=bytes(range(256)) * 9),
    build(mentions=(), destination_kind="topic", destination_ref="alerts", seal=EPOCH),
    build(mentions=(), destination_kind="queue", destination_ref="a.b-c_d", seal=EPOCH, priority="low"),
]


def refused(raw: bytes) -> bool:
    try:
        Envelope.decode(raw)
    except InvalidField:
        return True
    return False


@pytest.mark.parametrize("sent", SENT, ids=lambda sent: f"{sent.destination_kind}-{len(sent.body)}")
def test_a_frozen_envelope_is_what_was_frozen(sent: Envelope) -> None:
    assert parse_frozen(sent.encode()) == sent == Envelope.decode(sent.encode())


@given(CLIENT_MESSAGE_ID, st.binary(min_size=16, max_size=400))
def test_every_id_and_body_is_taken_or_left_to_the_parser_of_json(
    client_message_id: str, body: bytes
) -> None:
    """Ids with characters that JSON escapes are left."""
    sent = build(client_message_id=client_message_id, body=body, mentions=())
    found = parse_frozen(sent.encode())
    assert found == (None if '"' in client_message_id or "\\" in client_message_id else sent)


@given(st.data())
def test_a_changed_text_is_read_as_json_reads_it_or_left(data: st.DataObject) -> None:
    """Any byte replaced, added or taken away, and any part written twice."""
    raw = data.draw(st.sampled_from(SENT)).encode()
    at = data.draw(st.integers(0, len(raw) - 1))
    piece = data.draw(
        st.sampled_from([b"", b" ", b"=", b'"', b"\\", b"{", b",", b"0", b"A", b"\xc3\xa9", raw[:at]])
    )
    changed = raw[:at] + piece + raw[at + data.draw(st.integers(0, 3)) :]
    found = parse_frozen(changed)
    assert found is None or found == Envelope.decode(changed)


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in SENT[0].to_dict().items() if key != name}


WRONG: list[dict[str, Any]] = [
    *({**SENT[0].to_dict(), "destination_kind": kind} for kind in ("topic", "queue", "box")),
    *(
        {**SENT[2].to_dict(), "seal": {**EPOCH.to_dict(), "epoch": number}}
        for number in (0, -1, 2**31, 10**9 * 9)
    ),
    {**SENT[2].to_dict(), "destination_kind": "dm"},
    {**SENT[2].to_dict(), "seal": SENT[0].seal.to_dict()},
    {**SENT[0].to_dict(), "seal": EPOCH.to_dict()},
    {**SENT[0].to_dict(), "seal": {"alg": "none", "sender_key_id": ALICE.key_id}},
    {**SENT[0].to_dict(), "reply_to_id": ULID_TEXT.lower()},
    {**SENT[0].to_dict(), "body": "AAAA" * 4},
    {**SENT[0].to_dict(), "body": "A" * 30 + "B="},
    {**SENT[0].to_dict(), "body": "AAAA" * 6 + "===="},
    {**SENT[0].to_dict(), "body": "AAAA" * 99 + "===="},
    {**SENT[0].to_dict(), "signature": "A" * 85 + "B=="},
    {**SENT[0].to_dict(), "mentions": [BOB.ed25519_pubkey] * 2},
    {**SENT[0].to_dict(), "more": 1},
    *(without(name) for name in SENT[0].to_dict()),
]


@pytest.mark.parametrize("value", WRONG)
def test_a_wrong_envelope_is_left_to_the_parser_that_names_what_is_wrong(value: dict[str, Any]) -> None:
    raw = orjson.dumps(value)
    assert refused(raw)
    assert parse_frozen(raw) is None


@pytest.mark.parametrize(
    "raw",
    [
        orjson.dumps(SENT[0].to_dict(), option=orjson.OPT_INDENT_2),
        orjson.dumps(SENT[0].to_dict(), option=orjson.OPT_SORT_KEYS),
        build().encode(),
        SENT[0].encode().replace(b"deploy", b"\\u0064eploy"),
    ],
)
def test_another_spelling_of_a_right_envelope_is_left(raw: bytes) -> None:
    """White space, another order, mentions and escapes: the parser of JSON takes them."""
    assert not refused(raw)
    assert parse_frozen(raw) is None


@pytest.mark.parametrize("raw", [b"", b"{", b"null", BODY, b"\xff" * 300])
def test_other_bytes_are_left(raw: bytes) -> None:
    assert parse_frozen(raw) is None
