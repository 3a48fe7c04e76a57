from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_scalarmult_base

from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.receipts import Receipt, ReceiptState
from claudemesh.protocol.sealing import (
    BoxKeys,
    PlainContent,
    Receipting,
    SealedContent,
    SealedContext,
    SessionNames,
    decode_content,
    encode_content,
    open_box,
    plain_content,
    seal_box,
)
from tests.support.envelopes import ALICE, BOB, MESH_ID, NONCE
from tests.support.frames import CLIENT_MESSAGE_ID

SHARED = BoxKeys(ALICE.x25519_privkey).shared(BOB.x25519_pubkey)


CONTEXT = SealedContext(MESH_ID, ALICE.ed25519_pubkey, BOB.ed25519_pubkey, "deploy-42", "dm")


SESSIONS = st.builds(
    SessionNames,
    sender=st.sampled_from([None, "api"]),
    recipient=st.sampled_from([None, "web"]),
    hops=st.integers(0, 3),
    traceparent=st.none(),
)
WISHES = st.sampled_from([None, *ReceiptState]).map(Receipting)
RECEIPTS = Receipting(None, (Receipt(client_message_id="x", delivered_at=1),))


@given(st.text(), SESSIONS, WISHES)
def test_a_plain_content_is_read_by_its_message(
    message: str, sessions: SessionNames, wish: Receipting
) -> None:
    """Also a message with quotes and escapes, for the context that it was sealed with and no other."""
    content = encode_content(message, b"", CONTEXT, (), sessions, wish)
    found, whole = plain_content(content, CONTEXT), decode_content(content)
    assert found == PlainContent(message, whole.sessions, whole.receipting)
    assert plain_content(content, CONTEXT._replace(kind="topic")) is None


@pytest.mark.parametrize(
    "content",
    [
        encode_content("m", b'{"a":1}', CONTEXT),
        encode_content("m", b"", CONTEXT, sessions=SessionNames(traceparent=f"00-{'a' * 32}-{'b' * 16}-01")),
        encode_content("", b"", CONTEXT, receipting=RECEIPTS),
        encode_content("m", b"", CONTEXT)[:-1] + b',"message":"n"}',
        encode_content("m", b"", CONTEXT)[:-1] + b',"receipt":"shown","receipt":"acked"}',
        encode_content("m", b"", CONTEXT)[:-1] + b',"from_session":"no name"}',
        encode_content("m", b"", CONTEXT)[:-1] + b',"later":"' + b"x" * 300 + b'"}',
    ],
)
def test_a_content_with_more_is_read_as_a_whole(content: bytes) -> None:
    """Meta, traces, receipts, and fields of another version or of a stranger."""
    assert plain_content(content, CONTEXT) is None


@given(st.data(), SESSIONS, WISHES)
def test_a_changed_content_is_read_as_json_reads_it_or_left(
    data: st.DataObject, sessions: SessionNames, wish: Receipting
) -> None:
    """Any byte replaced, added or taken away, and any part written twice."""
    message, name = data.draw(st.text(max_size=20)), data.draw(CLIENT_MESSAGE_ID)
    context = CONTEXT._replace(client_message_id=name)
    raw = encode_content(message, b"", context, (), sessions, wish)
    at = data.draw(st.integers(0, len(raw) - 1))
    piece = data.draw(st.sampled_from([b"", b" ", b'"', b"\\", b"{", b'"meta":null', b"\xff", raw[:at]]))
    changed = raw[:at] + piece + raw[at + data.draw(st.integers(0, 3)) :]
    found = plain_content(changed, context)
    if found is not None:
        text, *rest = found
        assert decode_content(changed) == SealedContent(text, None, context, (), *rest)


def test_an_id_that_json_escapes_forges_no_context() -> None:
    """Without escapes its text would end the id and begin another field."""
    name = 'a","kind":"dm","message":"x'
    raw = encode_content("hello", b"", CONTEXT._replace(client_message_id=name))
    forged = raw.replace(b'\\"', b'"')
    assert plain_content(forged, CONTEXT._replace(client_message_id=name)) is None


def test_both_ends_share_one_key() -> None:
    """crypto_box: either's private key with the other's public key."""
    assert BoxKeys(BOB.x25519_privkey).shared(ALICE.x25519_pubkey) == SHARED


@given(st.binary(max_size=100))
def test_sealed_bytes_open(plaintext: bytes) -> None:
    """16 bytes longer, and the same again."""
    sealed = seal_box(plaintext, NONCE, SHARED)
    assert len(sealed) == len(plaintext) + 16
    assert open_box(sealed, NONCE, SHARED) == plaintext


@given(st.integers(min_value=0, max_value=20 * 8 - 1))
def test_a_single_bit_changed_does_not_open(bit: int) -> None:
    """Authenticated encryption."""
    sealed = bytearray(seal_box(b"four", NONCE, SHARED))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ProtocolError, match="cannot_open"):
        open_box(bytes(sealed), NONCE, SHARED)


@pytest.mark.parametrize(
    ("sealed", "nonce", "shared"),
    [
        (b"", NONCE, SHARED),
        (b"x" * 15, NONCE, SHARED),
        (seal_box(b"m", NONCE, SHARED), NONCE[::-1], SHARED),
        (seal_box(b"m", NONCE, SHARED), NONCE, bytes(32)),
        (seal_box(b"m", NONCE, SHARED), NONCE[:5], SHARED),
        (seal_box(b"m", NONCE, SHARED), NONCE, b"short"),
    ],
)
def test_mismatched_parts_do_not_open(sealed: bytes, nonce: bytes, shared: bytes) -> None:
    """The same error for each wrong part."""
    with pytest.raises(ProtocolError, match="cannot_open"):
        open_box(sealed, nonce, shared)


@pytest.mark.parametrize("point", ["0" * 64, "01" + "00" * 31, "ec" + "ff" * 30 + "7f", "", "x", "A" * 64])
def test_unusable_keys_are_refused(point: str) -> None:
    """A point of low order has the same shared key with every key."""
    with pytest.raises(ProtocolError, match="invalid_key"):
        BoxKeys(ALICE.x25519_privkey).shared(point)


def test_shared_keys_are_bounded() -> None:
    """At the limit the oldest entry is dropped, and computed again when needed."""
    keys = BoxKeys(ALICE.x25519_privkey, limit=2)
    peers = [ALICE.x25519_pubkey, BOB.x25519_pubkey, "09" + "00" * 31]
    first = [keys.shared(peer) for peer in peers]
    assert len(keys._shared) == 2
    assert [keys.shared(peer) for peer in peers] == first


META: st.SearchStrategy[Any] = st.none() | st.dictionaries(
    st.text(st.characters(codec="utf-8"), max_size=8), st.integers(-(2**53), 2**53), min_size=1, max_size=3
)


@given(st.text(st.characters(codec="utf-8")), META)
def test_content_survives(message: str, meta: dict[str, Any] | None) -> None:
    """With the envelope that it belongs to."""
    assert decode_content(encode_content(message, orjson.dumps(meta), CONTEXT)) == SealedContent(
        message, meta, CONTEXT
    )


def test_empty_meta_is_none() -> None:
    """Absent, null and {} are the same."""
    assert decode_content(encode_content("m", b"", CONTEXT)) == SealedContent("m", None, CONTEXT)
    assert decode_content(b'{"message":"m"}') == SealedContent("m", None, None)
    assert decode_content(b'{"message":"m","meta":{}}') == SealedContent("m", None, None)


def test_unknown_fields_of_the_content_are_ignored() -> None:
    """A later version may seal more."""
    raw = b'{"message":"m","a_later_field":"s","attachments":[]}'
    assert decode_content(raw) == SealedContent("m", None, None)


def test_versions_without_a_context_read_the_content() -> None:
    """They read message and meta only."""
    value = orjson.loads(encode_content("m", b'{"k":1}', CONTEXT))
    assert value == {
        "message": "m",
        "meta": {"k": 1},
        "mesh_id": MESH_ID,
        "from": ALICE.ed25519_pubkey,
        "to": BOB.ed25519_pubkey,
        "client_message_id": "deploy-42",
        "kind": "dm",
    }
    del value["kind"]
    assert decode_content(orjson.dumps(value)).context == CONTEXT._replace(kind=None)


@pytest.mark.parametrize("name", ["mesh_id", "from", "to", "client_message_id"])
def test_a_part_of_a_context_is_none(name: str) -> None:
    """It does not count as a body of a version without a context."""
    value = orjson.loads(encode_content("m", b"", CONTEXT))
    for wrong in (
        {**value, name: 5},
        {**value, name: None},
        {**value, "kind": 5},
        {"message": "m", name: "x"},
    ):
        with pytest.raises(ProtocolError, match="invalid_content"):
            decode_content(orjson.dumps(wrong))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"message":5}',
        b'{"message":"m","meta":[]}',
        b'{"message":"m","message":"n"}',
    ],
)
def test_content_of_another_shape_is_refused(raw: bytes) -> None:
    """invalid_content, and no other exception."""
    with pytest.raises(ProtocolError, match="invalid_content"):
        decode_content(raw)


def test_a_message_without_a_json_form_is_not_sealed() -> None:
    """It is refused before it is sealed."""
    with pytest.raises(ProtocolError, match="invalid_content"):
        encode_content("\ud800", b"", CONTEXT)


def test_the_golden_bodies_are_sealed_and_opened_to_the_byte() -> None:
    """Every implementation of the protocol opens them to the same message, meta and context."""
    golden = json.loads((Path(__file__).parents[2] / "vectors" / "sealed_content.json").read_text())
    sender, recipient = (bytes.fromhex(golden[f"{end}_x25519_privkey"]) for end in ("sender", "recipient"))
    shared = BoxKeys(recipient).shared(crypto_scalarmult_base(sender).hex())
    assert len(golden["cases"]) == 3
    for case in golden["cases"]:
        nonce, plaintext = bytes.fromhex(case["nonce_hex"]), case["plaintext"].encode()
        assert seal_box(plaintext, nonce, shared).hex() == case["sealed_hex"]
        assert open_box(bytes.fromhex(case["sealed_hex"]), nonce, shared) == plaintext
        found, context = decode_content(plaintext), case["context"]
        assert (found.message, found.meta) == (case["message"], case["meta"])
        if context is not None:
            names = ("mesh_id", "from", "to", "client_message_id", "kind")
            context = SealedContext(*(context[name] for name in names))
        assert found.context == context
