"""Keys of topics (docs/spec/protocol.md, Keys of topics)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.protocol.errors import InvalidField, ProtocolError
from claudemesh.protocol.keys import Identity, new_identity
from claudemesh.protocol.sealing import BoxKeys, seal_box
from claudemesh.protocol.topic_keys import (
    EpochStatement,
    TopicKey,
    Wrap,
    make_wrap,
    open_secret,
    open_wrap,
    seal_secret,
    sign_epoch,
    verify_epoch,
)
from tests.support.envelopes import ALICE, BOB, MESH_ID, NONCE, ULID_TEXT, identity
from tests.support.values import replace

GOLDEN = json.loads((Path(__file__).parents[2] / "vectors" / "topic_key.json").read_text("utf-8"))
OTHER_MESH = MESH_ID[:-1] + "2"
KEY = TopicKey("alerts", 3, bytes(range(32)))
STATEMENT = sign_epoch(ALICE, MESH_ID, KEY, "ab" * 32)
SHARED = BoxKeys(ALICE.x25519_privkey).shared(BOB.x25519_pubkey)
WRAP = make_wrap(ALICE, MESH_ID, KEY, recipient=BOB.ed25519_pubkey, shared=SHARED, nonce=NONCE)

topics = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)
topic_keys = st.builds(TopicKey, topics, st.integers(1, 2**31 - 1), st.binary(min_size=32, max_size=32))


def parsed(wrap: Wrap) -> Wrap:
    """The wrap as its recipient reads it."""
    value = json.loads(json.dumps(wrap.to_dict()))
    return Wrap.parse(value, wrap.topic, {wrap.key_epoch: wrap.commitment})


@given(topic_keys, st.binary(min_size=24, max_size=24))
def test_a_wrap_opens_for_its_recipient_to_the_key(key: TopicKey, nonce: bytes) -> None:
    """Also after the way over JSON, with the recipient's own private key."""
    made = make_wrap(ALICE, MESH_ID, key, recipient=BOB.ed25519_pubkey, shared=SHARED, nonce=nonce)
    own = BoxKeys(BOB.x25519_privkey).shared(ALICE.x25519_pubkey)
    assert open_wrap(MESH_ID, parsed(made), own) == key


@given(topic_keys, st.sampled_from(["", "cd" * 32]))
def test_an_epoch_reads_back_and_verifies(key: TopicKey, previous: str) -> None:
    """With the keys of its maker only."""
    statement = sign_epoch(ALICE, MESH_ID, key, previous)
    assert EpochStatement.parse(json.loads(json.dumps(statement.to_dict())), key.topic) == statement
    assert verify_epoch(MESH_ID, statement, {ALICE.ed25519_pubkey})
    assert not verify_epoch(MESH_ID, statement, {BOB.ed25519_pubkey})
    assert not verify_epoch(OTHER_MESH, statement, {ALICE.ed25519_pubkey})


@given(topic_keys, topic_keys)
def test_different_keys_have_different_commitments(one: TopicKey, two: TopicKey) -> None:
    """Over topic, epoch, key and mesh."""
    assert (one.commitment(MESH_ID) == two.commitment(MESH_ID)) == (one == two)
    assert one.commitment(MESH_ID) != one.commitment(OTHER_MESH)


@pytest.mark.parametrize(
    "changes",
    [
        {"topic": "other"},
        {"key_epoch": 4},
        {"commitment": "00" * 32},
        {"previous_commitment": ""},
        {"created_by": BOB.ed25519_pubkey},
        {"signature": bytes(64)},
    ],
    ids=str,
)
def test_every_field_of_an_epoch_is_signed(changes: dict[str, Any]) -> None:
    """Except the broker's time."""
    keys = {ALICE.ed25519_pubkey, BOB.ed25519_pubkey}
    assert verify_epoch(MESH_ID, replace(STATEMENT, created_at=5), keys)
    assert not verify_epoch(MESH_ID, replace(STATEMENT, **changes), keys)


@pytest.mark.parametrize(
    "changes",
    [
        {"topic": "other"},
        {"key_epoch": 4},
        {"commitment": "00" * 32},
        {"recipient": ALICE.ed25519_pubkey},
        {"wrapped_by": BOB.ed25519_pubkey},
        {"nonce": bytes(24)},
        {"ciphertext": bytes(48)},
        {"signature": bytes(64)},
    ],
    ids=str,
)
def test_every_field_of_a_wrap_is_signed(changes: dict[str, Any]) -> None:
    """A changed wrap is no wrap."""
    assert open_wrap(MESH_ID, WRAP, SHARED) == KEY
    with pytest.raises(ProtocolError, match="wrong_wrap"):
        open_wrap(MESH_ID, replace(WRAP, **changes), SHARED)
    with pytest.raises(ProtocolError, match="wrong_wrap"):
        open_wrap(OTHER_MESH, WRAP, SHARED)


def test_a_signed_wrap_of_another_key_is_refused() -> None:
    """A hostile holder signs what it likes: the commitment of the epoch decides."""
    false = TopicKey(KEY.topic, KEY.key_epoch, bytes(32))
    made = make_wrap(ALICE, MESH_ID, false, recipient=BOB.ed25519_pubkey, shared=SHARED, nonce=NONCE)
    claimed = Wrap.parse(made.to_dict(), KEY.topic, {KEY.key_epoch: STATEMENT.commitment})
    with pytest.raises(ProtocolError, match="wrong_wrap"):
        open_wrap(MESH_ID, claimed, SHARED)


def test_a_wrap_for_another_member_does_not_open() -> None:
    """Its box is not for these keys."""
    carol = identity("carol")
    shared = BoxKeys(ALICE.x25519_privkey).shared(carol.x25519_pubkey)
    made = make_wrap(ALICE, MESH_ID, KEY, recipient=carol.ed25519_pubkey, shared=shared, nonce=NONCE)
    with pytest.raises(ProtocolError, match="wrong_wrap"):
        open_wrap(MESH_ID, made, SHARED)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        *(("key_epoch", wrong) for wrong in (0, -1, True, 1.0, "1", None, 2**31)),
        *(("recipient", wrong) for wrong in (None, "A" * 64, "a" * 63)),
        *(("wrapped_by", wrong) for wrong in (None, 5)),
        *(("nonce", wrong) for wrong in (None, "", "AAAA")),
        *(("ciphertext", wrong) for wrong in (None, "", "AAAA", "A" * 400)),
        *(("signature", wrong) for wrong in (None, "AAAA")),
    ],
)
def test_a_malformed_wrap_is_refused(field: str, wrong: Any) -> None:
    """The error names the field."""
    with pytest.raises(InvalidField) as caught:
        Wrap.parse({**WRAP.to_dict(), field: wrong}, KEY.topic, {KEY.key_epoch: STATEMENT.commitment})
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        *(("key_epoch", wrong) for wrong in (0, True, None)),
        *(("commitment", wrong) for wrong in (None, "", "A" * 64)),
        *(("previous_commitment", wrong) for wrong in (None, "x", "a" * 63)),
        *(("created_by", wrong) for wrong in (None, "")),
        *(("signature", wrong) for wrong in (None, "AAAA")),
        *(("created_at", wrong) for wrong in (-1, "5", True)),
    ],
)
def test_a_malformed_epoch_is_refused(field: str, wrong: Any) -> None:
    """The error names the field."""
    with pytest.raises(InvalidField) as caught:
        EpochStatement.parse({**STATEMENT.to_dict(), field: wrong}, KEY.topic)
    assert caught.value.field == field


@given(st.binary(max_size=100), st.integers(0, 15 * 8))
def test_a_body_opens_with_its_key_and_unchanged_only(plaintext: bytes, bit: int) -> None:
    """Authenticated encryption, 16 bytes longer."""
    sealed = seal_secret(plaintext, NONCE, KEY.key)
    assert len(sealed) == len(plaintext) + 16
    assert open_secret(sealed, NONCE, KEY.key) == plaintext
    changed = bytearray(sealed)
    changed[bit // 8] ^= 1 << bit % 8
    for body, nonce, key in (
        (bytes(changed), NONCE, KEY.key),
        (sealed, NONCE, bytes(32)),
        (b"x", NONCE, KEY.key),
    ):
        with pytest.raises(ProtocolError, match="cannot_open"):
            open_secret(body, nonce, key)


def test_a_key_is_not_shown() -> None:
    """A log of a key shows its topic and epoch."""
    assert str(KEY) == "TopicKey(topic='alerts', key_epoch=3)"


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=[case["name"] for case in GOLDEN["cases"]])
def test_the_golden_cases_are_reproduced_to_the_byte(case: dict[str, Any]) -> None:
    """Every implementation commits, signs and wraps the same bytes."""
    maker, recipient = of_seeds(case["maker"]), of_seeds(case["recipient"])
    key = TopicKey(case["topic"], case["key_epoch"], bytes.fromhex(case["key_hex"]))
    assert key.commitment(case["mesh_id"]) == case["commitment"]
    statement = sign_epoch(maker, case["mesh_id"], key, case["previous_commitment"])
    assert statement.to_dict() == case["epoch"]
    shared = BoxKeys(maker.x25519_privkey).shared(recipient.x25519_pubkey)
    nonce = bytes.fromhex(case["nonce_hex"])
    assert seal_box(key.key, nonce, shared).hex() == case["ciphertext_hex"]
    wrap = make_wrap(
        maker, case["mesh_id"], key, recipient=recipient.ed25519_pubkey, shared=shared, nonce=nonce
    )
    assert wrap.to_dict() == case["wrap"]


def of_seeds(seeds: list[str]) -> Identity:
    """The identity of an ed25519 seed and an x25519 private key."""
    left = iter(seeds)
    return new_identity(lambda _: bytes.fromhex(next(left)), f"k_{ULID_TEXT}")
