"""Phase validate: the verdict on an envelope, and the proof that its sender has signed it."""

from __future__ import annotations

import json

import orjson
import pytest

from claudemesh.broker.limiter.base import Allowance
from claudemesh.broker.messages.sender import Sender
from claudemesh.broker.messages.submission import SendInProgress, prepare
from claudemesh.broker.store.types import NewSend, SendKey
from claudemesh.protocol.envelope import Seal
from claudemesh.protocol.errors import ProtocolError
from tests.support.values import replace
from tests.support.wspeer import Frame, Peer, make_identity

MESH = "01900000-0000-7000-8000-000000000000"
MESSAGE = "01J0000000000000000000000A"
ADA = Peer("ada", make_identity(), MESH, "home", "member-ada", "ws://127.0.0.1:1")
BOB = Peer("bob", make_identity(), MESH, "home", "member-bob", "ws://127.0.0.1:1")
SENDER = Sender(MESH, "member-ada", "ada", ADA.pubkey, Allowance(120_000, 30_000, 1 << 28))


def prepared(envelope: Frame, inline_bytes: int = 4096) -> SendInProgress:
    """Return the submission of an envelope that has a usable id."""
    result = prepare(SENDER, envelope, inline_bytes=inline_bytes, broker_message_id=MESSAGE)
    assert isinstance(result, SendInProgress)
    return result


def verdict_code(envelope: Frame, inline_bytes: int = 4096) -> str:
    """Return the error with which validate refuses an envelope."""
    verdict = prepared(envelope, inline_bytes).verdict
    assert isinstance(verdict, ProtocolError)
    return verdict.code


def test_a_right_envelope_is_ready_to_be_written() -> None:
    """Everything the store needs, keyed by the connection's member and nothing in the frame."""
    envelope = ADA.envelope(BOB, priority="now", mentions=[BOB.pubkey], client_message_id="deploy-42")
    submission = prepared(envelope)
    send = submission.verdict
    assert isinstance(send, NewSend)
    assert submission.is_proven()
    assert submission.key == send.key == SendKey(MESH, "member-ada", "deploy-42")
    assert (
        submission.sender_fingerprint
        == send.request_fingerprint
        == bytes.fromhex(envelope["request_fingerprint"])
    )
    assert (send.destination_kind, send.destination_ref) == ("dm", BOB.pubkey)
    assert (send.priority, send.broker_message_id) == (0, MESSAGE)


def test_the_size_limit_is_of_the_sealed_body() -> None:
    """At the limit it passes, one byte more does not."""
    envelope = ADA.envelope("all", "x" * 100)
    assert isinstance(prepared(envelope, inline_bytes=100).verdict, NewSend)
    assert verdict_code(envelope, inline_bytes=99) == "payload_too_large"


@pytest.mark.parametrize("kind", ["topic", "queue"])
def test_an_unsealed_body_is_refused(kind: str) -> None:
    """Its id stays usable: it is looked up first, and it is free for the sealed send."""
    seal = Seal("none", b"", ADA.identity.key_id)
    envelope = ADA.envelope("all", "text", destination_kind=kind, seal=seal)
    submission = prepared(envelope)
    assert isinstance(submission.verdict, ProtocolError)
    assert (submission.verdict.code, submission.verdict.status) == ("seal_required", 422)
    assert submission.key == SendKey(MESH, "member-ada", envelope["client_message_id"])
    for sealed in (ADA.envelope(BOB), secret_post()):
        assert isinstance(prepared(sealed).verdict, NewSend)


def test_the_epoch_of_a_sealed_post_is_part_of_its_row() -> None:
    """The store compares it with the topic's; a dm has none."""
    found = [prepared(one).verdict for one in (secret_post(), ADA.envelope(BOB))]
    assert [isinstance(one, NewSend) and one.key_epoch for one in found] == [3, None]


def secret_post() -> Frame:
    """A post under the third epoch of its topic."""
    return ADA.envelope("all", "x" * 32, seal=Seal("secretbox", bytes(24), ADA.identity.key_id, key_epoch=3))


@pytest.mark.parametrize("field", ["destination_ref", "priority", "body", "reply_to_id"])
def test_whatever_the_fingerprint_covers_must_fit_it(field: str) -> None:
    """The broker recomputes the fingerprint: a changed field is a drift."""
    other = ADA.envelope("ops", "other", priority="low", reply_to_id=MESSAGE)
    envelope = ADA.envelope("all", "text") | {field: other[field]}
    assert verdict_code(envelope) == "fingerprint_drift"


@pytest.mark.parametrize(
    "changes",
    [
        {"client_message_id": "another"},
        {"mentions": [BOB.pubkey]},
        {"signature": "A" * 86 + "=="},
        {"signature": BOB.envelope("all", "text")["signature"]},
    ],
    ids=["id", "mentions", "zeros", "another-signer"],
)
def test_what_the_sender_did_not_sign_is_refused(changes: Frame) -> None:
    """Every recipient would drop it, so it was not accepted: a code that every version knows as final."""
    submission = prepared(ADA.envelope("all", "text", client_message_id="one") | changes)
    assert not submission.is_proven()
    verdict = submission.forged().verdict
    assert isinstance(verdict, ProtocolError)
    assert (verdict.code, verdict.status, verdict.fields["field"]) == ("invalid_envelope", 400, "signature")


def test_a_send_signed_for_another_mesh_is_refused() -> None:
    """The signature names its mesh."""
    assert not prepared(replace(ADA, mesh_id=MESH[:-1] + "1").envelope("all")).is_proven()


def test_a_send_signed_before_the_member_changed_its_keys_is_taken() -> None:
    """It was frozen by then; an unknown key proves nothing."""
    for earlier, taken in (((ADA.pubkey,), True), ((), False)):
        sender = replace(SENDER, pubkey=BOB.pubkey, earlier_pubkeys=earlier)
        found = prepare(sender, ADA.envelope("all"), inline_bytes=4096, broker_message_id=MESSAGE)
        assert isinstance(found, SendInProgress)
        assert found.is_proven() is taken


def test_an_id_that_can_be_looked_up_is_kept_whatever_else_is_wrong() -> None:
    """The lookup comes first: a refusal counts only when the id is unknown."""
    envelope = ADA.envelope("all", client_message_id="deploy-42")
    submission = prepared(envelope | {"body": None})
    assert submission.key.client_message_id == "deploy-42"
    assert submission.sender_fingerprint == bytes.fromhex(envelope["request_fingerprint"])
    assert isinstance(submission.verdict, ProtocolError)
    assert submission.is_proven()


@pytest.mark.parametrize("client_message_id", [None, "", "a b", "x" * 256, 7, ["a"], "ümlaut", "a\n"])
def test_an_unusable_id_is_refused_at_once(client_message_id: object) -> None:
    """1 to 255 characters of ! to ~, and nothing is trimmed."""
    envelope = ADA.envelope("all") | {"client_message_id": client_message_id}
    result = prepare(SENDER, envelope, inline_bytes=4096, broker_message_id=MESSAGE)
    assert isinstance(result, ProtocolError)
    assert result.code == "invalid_envelope"
    assert result.fields["field"] == "client_message_id"


@pytest.mark.parametrize("claimed", [None, 7, "", "zz" * 32, "00" * 31])
def test_a_claim_that_is_no_fingerprint_matches_nothing(claimed: object) -> None:
    """Such a send can be neither a duplicate nor accepted."""
    submission = prepared(ADA.envelope("all") | {"request_fingerprint": claimed})
    assert submission.sender_fingerprint is None
    assert isinstance(submission.verdict, ProtocolError)


@pytest.mark.parametrize("changes", [{}, {"mentions": [BOB.pubkey]}, {"client_message_id": 'a"b'}])
def test_the_text_of_an_envelope_is_judged_like_its_object(changes: Frame) -> None:
    """Texts as daemons write them have a parser of their own; both keep the same bytes."""
    envelope = ADA.envelope(BOB, "body", **changes)
    text = orjson.dumps(envelope)
    made = prepare(SENDER, text, inline_bytes=4096, broker_message_id=MESSAGE)
    assert made == prepared(envelope)
    assert isinstance(made, SendInProgress)
    assert isinstance(made.verdict, NewSend)
    assert made.verdict.envelope == text


@pytest.mark.parametrize("changes", [{"v": 2**64}, {"more": -(2**70)}, {"seal": {"epoch": 2**64}}])
def test_a_number_beyond_64_bits_is_a_wrong_field(changes: Frame) -> None:
    """Python reads it, and orjson does not write it."""
    envelope = ADA.envelope(BOB, "body") | changes
    for raw in (envelope, json.dumps(envelope).encode()):
        made = prepare(SENDER, raw, inline_bytes=4096, broker_message_id=MESSAGE)
        assert isinstance(made, SendInProgress)
        assert isinstance(made.verdict, ProtocolError)
        assert made.verdict.code == "invalid_envelope"


@pytest.mark.parametrize("text", [b"5", b"[]", b'{"a":1,"a":2}', b"[" * 65 + b"]" * 65])
def test_a_text_that_is_no_strict_object_is_refused(text: bytes) -> None:
    """It has no id to look up."""
    refused = prepare(SENDER, text, inline_bytes=4096, broker_message_id=MESSAGE)
    assert isinstance(refused, ProtocolError)
    assert refused.code == "invalid_envelope"
