from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.protocol.envelope import MAX_MENTIONS, Envelope, Seal
from claudemesh.protocol.errors import InvalidField
from claudemesh.protocol.signing import verify_envelope
from claudemesh.protocol.wire import PRIORITY_RANK
from tests.support.envelopes import ALICE, BOB, BODY, MESH_ID, NONCE, ULID_TEXT, build, build_topic

BOX = {
    "alg": "box",
    "nonce": base64.b64encode(NONCE).decode(),
    "sender_key_id": ALICE.key_id,
    "recipient_key_id": BOB.key_id,
}
SECRETBOX = {"alg": "secretbox", "nonce": BOX["nonce"], "sender_key_id": ALICE.key_id, "epoch": 3}
NO_STRINGS: list[object] = [None, 5, True, 1.5, [], {}]
NO_KEYS: list[object] = [*NO_STRINGS, "", "0" * 63, "A" * 64, "0" * 64 + "\n", "\ud800" * 64]


def refused(value: object) -> str:
    """The field that a refusal names."""
    with pytest.raises(InvalidField) as caught:
        Envelope.parse(value)
    assert caught.value.code == "invalid_envelope"
    assert caught.value.message.endswith(".")
    return caught.value.field


SECRETBOX_TOPIC = build(
    destination_kind="topic", destination_ref="alerts", seal=Seal("secretbox", NONCE, ALICE.key_id, None, 3)
)


@pytest.mark.parametrize(
    "envelope", [build(), build_topic(), build(reply_to_id=None, mentions=()), SECRETBOX_TOPIC]
)
def test_envelope_survives_the_wire(envelope: Envelope) -> None:
    """parse and to_dict, decode and encode are inverse; the bytes are frozen."""
    assert Envelope.parse(envelope.to_dict()) == envelope
    assert Envelope.decode(envelope.encode()) == envelope
    assert Envelope.decode(envelope.encode()).encode() == envelope.encode()


def test_wire_form_is_that_of_the_page() -> None:
    """docs/spec/protocol.md, Envelope: names and spellings."""
    envelope = build()
    assert orjson.loads(envelope.encode()) == {
        "v": 1,
        "client_message_id": "deploy-42",
        "destination_kind": "dm",
        "destination_ref": BOB.ed25519_pubkey,
        "reply_to_id": ULID_TEXT,
        "priority": "next",
        "mentions": [BOB.ed25519_pubkey],
        "body": base64.b64encode(BODY).decode(),
        "seal": BOX,
        "request_fingerprint": envelope.request_fingerprint.hex(),
        "signature": base64.b64encode(envelope.signature).decode(),
    }
    assert build_topic().to_dict()["seal"] == {"alg": "none", "sender_key_id": ALICE.key_id}
    assert SECRETBOX_TOPIC.to_dict()["seal"] == SECRETBOX


BROKEN: dict[str, list[object]] = {
    "v": [None, 0, 2, True, 1.0, "1"],
    "client_message_id": [*NO_STRINGS, "", "x" * 256, "a b", "a\n", "a\0", "é", "\ud800"],
    "destination_kind": [*NO_STRINGS, "", "DM", "dm\n", "group"],
    "destination_ref": [*NO_KEYS, "alerts"],
    "reply_to_id": [5, True, [], "", "x", ULID_TEXT.lower(), ULID_TEXT + "\n"],
    "priority": [*NO_STRINGS, "", "high", "NEXT", 1],
    "mentions": [None, "x", 5, {}, [BOB.ed25519_pubkey] * 2, [BOB.ed25519_pubkey] * (MAX_MENTIONS + 1)],
    "body": [*NO_STRINGS, "AAA", "A" * 22 + "!!", "A" * 21 + "B==", "A" * 24 + "\n", "é" * 24, "", "AAAA"],
    "seal": [None, "box", [], 5],
    "request_fingerprint": [*NO_KEYS],
    "signature": [*NO_STRINGS, "", "A" * 84, "A" * 88, "A" * 92, "A" * 85 + "B=="],
}


@pytest.mark.parametrize(("field", "value"), [(name, value) for name in BROKEN for value in BROKEN[name]])
def test_one_wrong_field_is_named(field: str, value: object) -> None:
    """400 with a field name; a bool is no integer, white space is not trimmed."""
    assert refused({**build().to_dict(), field: value}) == field


@pytest.mark.parametrize("field", sorted(build().to_dict()))
def test_missing_field_is_named(field: str) -> None:
    """Every field is there, null included: the signature is over all of them."""
    value = build().to_dict()
    del value[field]
    assert refused(value) == field


@pytest.mark.parametrize("key", NO_KEYS)
def test_wrong_mention_is_named_by_its_place(key: object) -> None:
    """Mentions are member keys."""
    assert refused({**build().to_dict(), "mentions": [BOB.ed25519_pubkey, key]}) == "mentions[1]"


@pytest.mark.parametrize("value", [None, [], "envelope", 5, b"{}"])
def test_envelope_must_be_an_object(value: object) -> None:
    """Nothing else is one."""
    assert refused(value) == "envelope"


def test_unknown_field_is_refused() -> None:
    """The signature would not cover it."""
    assert refused({**build().to_dict(), "from_session": "x"}) == "envelope"
    assert refused({**build().to_dict(), "seal": {**BOX, "extra": 1}}) == "seal"


SEALS: dict[str, list[tuple[dict[str, Any], dict[str, object]]]] = {
    "seal.alg": [(BOX, {"alg": alg}) for alg in (*NO_STRINGS, "", "BOX", "aes", "secretbox", "none")],
    "seal.nonce": [
        (BOX, {"nonce": nonce}) for nonce in (*NO_STRINGS, "", "A" * 28, "A" * 36, "A" * 31 + "=")
    ],
    "seal.sender_key_id": [
        (BOX, {"sender_key_id": key_id}) for key_id in (*NO_STRINGS, "", ULID_TEXT, "k_x")
    ],
    "seal.recipient_key_id": [
        (BOX, {"recipient_key_id": key_id}) for key_id in (*NO_STRINGS, "k_", "x" * 500)
    ],
}


@pytest.mark.parametrize(
    ("field", "seal"), [(field, {**seal, **change}) for field in SEALS for seal, change in SEALS[field]]
)
def test_wrong_seal_is_named(field: str, seal: dict[str, object]) -> None:
    """Sizes, syntax and algorithms; a dm is sealed to its recipient or refused."""
    named = refused({**build().to_dict(), "seal": seal})
    # Another algorithm has other fields: then the first that is missing, or one too many, is named.
    assert named == field or (field == "seal.alg" and named in ("seal", "seal.epoch"))


@pytest.mark.parametrize("epoch", [None, True, 1.0, -1, 0, 2**31, "3", []])
def test_wrong_epoch_is_named(epoch: object) -> None:
    """A whole number, bounded, and no bool."""
    value = {**SECRETBOX_TOPIC.to_dict(), "seal": {**SECRETBOX, "epoch": epoch}}
    assert refused(value) == "seal.epoch"


@pytest.mark.parametrize("seal", [SECRETBOX, {"alg": "none", "sender_key_id": ALICE.key_id}])
def test_dm_is_never_downgraded(seal: dict[str, object]) -> None:
    """dm: box, nothing else."""
    assert refused({**build().to_dict(), "seal": seal}) == "seal.alg"


@pytest.mark.parametrize("kind", ["topic", "queue"])
def test_topic_and_queue_take_no_box(kind: str) -> None:
    """secretbox, or none until topic keys exist."""
    assert refused({**build_topic().to_dict(), "destination_kind": kind, "seal": BOX}) == "seal.alg"
    assert Envelope.parse({**build_topic().to_dict(), "destination_kind": kind}).destination_kind == kind


@pytest.mark.parametrize("ref", [*NO_STRINGS, "", "A", "a" * 64, "#all", "all\n", "-a"])
def test_topic_name_is_checked(ref: object) -> None:
    """The syntax of a name depends on the kind."""
    assert refused({**build_topic().to_dict(), "destination_ref": ref}) == "destination_ref"


def test_short_body_can_only_be_unsealed() -> None:
    """A sealed body has at least the 16 bytes of its tag."""
    assert build_topic(body=b"").body == b""
    with pytest.raises(InvalidField):
        build(body=b"x" * 15)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"v":1,"v":1}', b"\xff", b"[" * 100_000])
def test_decode_refuses_any_other_bytes(raw: bytes) -> None:
    """A row of the outbox may be damaged: one kind of error."""
    with pytest.raises(InvalidField) as caught:
        Envelope.decode(raw)
    assert caught.value.code == "invalid_envelope"


VISIBLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=255)
HEX = st.binary(min_size=32, max_size=32).map(bytes.hex)
KEY_IDS = st.just(ALICE.key_id)
NONCES = st.binary(min_size=24, max_size=24)
SEALED = st.builds(Seal, st.just("box"), NONCES, KEY_IDS, KEY_IDS, st.none())
TOPIC_SEALED = st.builds(
    Seal, st.just("secretbox"), NONCES, KEY_IDS, st.none(), st.integers(1, 2**31 - 1)
) | st.just(Seal("none", b"", ALICE.key_id))
NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)


@given(
    VISIBLE,
    st.tuples(st.just("dm"), HEX, SEALED)
    | st.tuples(st.sampled_from(["topic", "queue"]), NAMES, TOPIC_SEALED),
    st.none() | st.just(ULID_TEXT),
    st.sampled_from(sorted(PRIORITY_RANK)),
    st.lists(HEX, max_size=3, unique=True),
    st.binary(min_size=16, max_size=40),
)
def test_signed_part_equals_the_reference(
    client_message_id: str,
    to: tuple[str, str, Seal],
    reply_to_id: str | None,
    priority: str,
    mentions: list[str],
    body: bytes,
) -> None:
    """JCS of the envelope without body and signature, as rfc8785 writes it."""
    envelope = build(
        client_message_id=client_message_id,
        destination_kind=to[0],
        destination_ref=to[1],
        seal=to[2],
        reply_to_id=reply_to_id,
        priority=priority,
        mentions=mentions,
        body=body,
    )
    fields: dict[str, Any] = envelope.to_dict()
    del fields["body"], fields["signature"]
    assert envelope.signed_part() == rfc8785.dumps(fields)
    assert Envelope.decode(envelope.encode()) == envelope


OTHER: dict[str, Any] = {
    "client_message_id": "deploy-43",
    "destination_ref": ALICE.ed25519_pubkey,
    "reply_to_id": None,
    "priority": "now",
    "mentions": (),
    "body": BODY + b"!",
    "seal": Seal("box", NONCE[::-1], ALICE.key_id, BOB.key_id),
    "request_fingerprint": b"\0" * 32,
    "signature": b"\0" * 64,
}


def genuine(envelope: Envelope, pubkey: str = ALICE.ed25519_pubkey, mesh_id: str = MESH_ID) -> bool:
    """The checks of a receiver: the fingerprint covers the body, the signature covers the rest."""
    return envelope.expected_fingerprint() == envelope.request_fingerprint and verify_envelope(
        pubkey, mesh_id, envelope.signed_part(), envelope.signature
    )


def test_signed_envelope_is_genuine() -> None:
    """For its sender and its mesh, and no other."""
    assert genuine(build())
    assert not genuine(build(), pubkey=BOB.ed25519_pubkey)
    assert not genuine(build(), mesh_id=MESH_ID[:-1] + "2")


@pytest.mark.parametrize("field", sorted(OTHER))
def test_envelope_with_one_field_changed_is_forged(field: str) -> None:
    """Neither sender, destination, reply, mention, priority nor body can be changed on the way."""
    assert not genuine(build()._replace(**{field: OTHER[field]}))


def test_every_part_of_the_seal_is_signed() -> None:
    """Nonce, key ids and epoch belong to the signature."""
    for change in (
        {"nonce": NONCE[::-1]},
        {"sender_key_id": "k_" + "0" * 26},
        {"recipient_key_id": "k_" + "0" * 26},
    ):
        envelope = build()
        assert not genuine(envelope._replace(seal=envelope.seal._replace(**change)))
    epoch = SECRETBOX_TOPIC._replace(seal=SECRETBOX_TOPIC.seal._replace(key_epoch=4))
    assert genuine(SECRETBOX_TOPIC)
    assert not genuine(epoch)


def test_kind_is_signed() -> None:
    """A topic post is no queue job."""
    assert genuine(build_topic())
    assert not genuine(build_topic()._replace(destination_kind="queue"))


def test_signing_again_with_a_new_fingerprint_does_not_help() -> None:
    """A new body under the old signature: the fingerprint is signed too."""
    changed = build()._replace(body=BODY + b"!")
    changed = changed._replace(request_fingerprint=changed.expected_fingerprint())
    assert not genuine(changed)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"client_message_id": "a b"}, "client_message_id"),
        ({"destination_ref": "nobody"}, "destination_ref"),
        ({"destination_kind": "group"}, "destination_kind"),
        ({"reply_to_id": "x"}, "reply_to_id"),
        ({"priority": "high"}, "priority"),
        ({"mentions": ("bob",)}, "mentions[0]"),
        ({"mentions": [f"{n:064x}" for n in range(MAX_MENTIONS + 1)]}, "mentions"),
        ({"seal": Seal("box", NONCE[:-1], ALICE.key_id, BOB.key_id)}, "seal.nonce"),
        ({"seal": Seal("box", b"", ALICE.key_id, BOB.key_id)}, "seal.nonce"),
        ({"seal": Seal("none", b"", ALICE.key_id)}, "seal.alg"),
    ],
)
def test_nothing_wrong_is_ever_signed(change: dict[str, Any], field: str) -> None:
    """Every envelope of build_envelope is accepted by parse."""
    with pytest.raises(InvalidField) as caught:
        build(**change)
    assert (caught.value.code, caught.value.field) == ("invalid_envelope", field)


def test_repeated_mention_is_kept_once() -> None:
    """A caller may mention a member twice."""
    assert build(mentions=(BOB.ed25519_pubkey, BOB.ed25519_pubkey)).mentions == (BOB.ed25519_pubkey,)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(BROKEN)), JSON)
def test_any_value_in_any_field_is_taken_or_refused(field: str, value: object) -> None:
    """No value raises another exception."""
    try:
        Envelope.parse({**build().to_dict(), field: value})
    except InvalidField as error:
        assert error.code == "invalid_envelope"
