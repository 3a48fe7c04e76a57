"""One valid frame of each type, and a strategy for all valid frames of each type."""

from __future__ import annotations

import string
from typing import Any

from hypothesis import strategies as st

from claudemesh.protocol import frames
from tests.support.envelopes import ALICE, MEMBER_ID, MESH_ID, ULID_TEXT, build

ENVELOPE = build().to_dict()
SENDER = frames.DeliverySender(MEMBER_ID, "alice", ALICE.ed25519_pubkey)
HELLO = frames.Hello(
    mesh_id=MESH_ID,
    pubkey=ALICE.ed25519_pubkey,
    key_id=ALICE.key_id,
    name="alice",
    host_fingerprint="ab" * 32,
    daemon_version="1.2.3",
    instance_id=ULID_TEXT,
    ephemeral=False,
    audience="127.0.0.1:7900",
    signature=b"\1" * 64,
)
FRAMES: list[frames.Frame] = [
    frames.Challenge(b"\2" * 32, 1_700_000_000_000, "1.2.3", (1,)),
    HELLO,
    frames.HelloAck(MEMBER_ID, ULID_TEXT, {"slug": "prod"}, 1_700_000_000_000, ULID_TEXT),
    frames.FeatureRequest(("client_message_id_dedupe",), ("key_epoch",)),
    frames.FeatureResponse({"key_epoch": {"params": {"version": 1}}}, ("max_payload",)),
    frames.Send("row-1", ENVELOPE),
    frames.SendResult(7, 201, {"broker_message_id": ULID_TEXT, "history_id": 5, "duplicate": False}),
    frames.Deliver(4, ULID_TEXT, 9, SENDER, 1_700_000_000_000, ENVELOPE),
    frames.Sends((frames.Send("row-1", ENVELOPE), frames.Send(2, ENVELOPE))),
    frames.SendResults((frames.SendResult(7, 201, {"duplicate": False}), frames.SendResult("8", 500, {}))),
    frames.Delivers((frames.Deliver(4, ULID_TEXT, 9, SENDER, 1_700_000_000_000, ENVELOPE),)),
    frames.DeliverAck((1, 2, 3)),
    frames.Call("c1", "topic_list", {}),
    frames.Reply("c1", ok={"items": []}),
    frames.Reply("c1", ok=None),
    frames.Reply("c1", error={"code": "topic_not_found", "message": "There is none."}),
    frames.Event("peer_join", {"name": "bob"}),
    frames.ErrorFrame("unknown_type", "No such type."),
    frames.ErrorFrame("unknown_type", "No such type.", 5),
    frames.Revoked({"v": 1, "kind": "revocation"}),
    frames.UnknownFrame("from_the_future"),
    frames.UnknownFrame("from_the_future", "x1"),
]

TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=64)
MESSAGE = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=200)
NUMBER = st.integers(0, 2**63 - 1)
TIME_MS = st.integers(0, 253_402_300_799_999)
HEX_32 = st.binary(min_size=32, max_size=32).map(bytes.hex)
UUID = st.uuids().map(str)
ULID = st.text("0123456789ABCDEFGHJKMNPQRSTVWXYZ", min_size=25, max_size=25).map("0".__add__)
KEY_ID = ULID.map("k_".__add__)
MEMBER_NAME = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True)
NAME = st.from_regex(r"[a-z][a-z0-9_]{0,63}", fullmatch=True)
NAMES = st.lists(NAME, max_size=5).map(tuple)
FRAME_ID = NUMBER | TEXT
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
OBJECT = st.dictionaries(st.text(string.ascii_lowercase, max_size=6), VALUES, max_size=4)
# The fields that go with the status of a send_result have names of their own.
RESULT_FIELDS = st.dictionaries(NAME, VALUES, max_size=4).map(
    lambda found: {name: value for name, value in found.items() if name not in ("type", "id", "status")}
)
SENDERS = st.builds(frames.DeliverySender, UUID, MEMBER_NAME, HEX_32)
CLIENT_MESSAGE_ID = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=255)
ENVELOPES = st.builds(
    lambda client_message_id, body: build(client_message_id=client_message_id, body=body),
    CLIENT_MESSAGE_ID,
    st.binary(min_size=16, max_size=64),
)
SENDS = st.builds(frames.Send, FRAME_ID, ENVELOPES.map(lambda made: made.to_dict()))
RESULTS = st.builds(frames.SendResult, FRAME_ID, st.integers(100, 599), RESULT_FIELDS)
DELIVERIES = st.builds(
    frames.Deliver, NUMBER, ULID, NUMBER, SENDERS, TIME_MS, ENVELOPES.map(lambda made: made.to_dict())
)
BY_KIND: dict[str, st.SearchStrategy[Any]] = {
    "sends": st.lists(SENDS, min_size=1, max_size=3).map(lambda items: frames.Sends(tuple(items))),
    "send_results": st.lists(RESULTS, min_size=1, max_size=3).map(
        lambda items: frames.SendResults(tuple(items))
    ),
    "delivers": st.lists(DELIVERIES, min_size=1, max_size=3).map(lambda items: frames.Delivers(tuple(items))),
    "challenge": st.builds(
        frames.Challenge,
        st.binary(min_size=32, max_size=32),
        TIME_MS,
        TEXT,
        st.lists(st.integers(1, 9), max_size=3).map(tuple),
    ),
    "hello": st.builds(
        frames.Hello,
        mesh_id=UUID,
        pubkey=HEX_32,
        key_id=KEY_ID,
        name=MEMBER_NAME,
        host_fingerprint=HEX_32 | st.just(""),
        daemon_version=TEXT,
        instance_id=TEXT,
        ephemeral=st.booleans(),
        audience=CLIENT_MESSAGE_ID,
        signature=st.binary(min_size=64, max_size=64),
    ),
    "hello_ack": st.builds(frames.HelloAck, UUID, TEXT, OBJECT, TIME_MS, TEXT),
    "feature_negotiation_request": st.builds(frames.FeatureRequest, NAMES, NAMES),
    "feature_negotiation_response": st.builds(
        frames.FeatureResponse, st.dictionaries(NAME, VALUES, max_size=4), NAMES
    ),
    "send": SENDS,
    "send_result": RESULTS,
    "deliver": DELIVERIES,
    "deliver_ack": st.builds(frames.DeliverAck, st.lists(NUMBER, max_size=9).map(tuple)),
    "call": st.builds(frames.Call, FRAME_ID, NAME, OBJECT),
    "reply": st.builds(frames.Reply, FRAME_ID, ok=VALUES)
    | st.builds(frames.Reply, FRAME_ID, error=st.fixed_dictionaries({"code": NAME, "message": MESSAGE})),
    "event": st.builds(frames.Event, NAME, OBJECT),
    "error": st.builds(frames.ErrorFrame, NAME, MESSAGE, st.none() | FRAME_ID),
    "revoked": st.builds(frames.Revoked, OBJECT),
}
