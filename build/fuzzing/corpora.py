"""The seeds of each target: what real spellers make, so that a run begins behind the first checks."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from functools import cache
from typing import Any

from claudemesh.protocol import frames
from claudemesh.protocol.base64 import to_base64
from claudemesh.protocol.envelope import Seal
from claudemesh.protocol.invites import LINK_PREFIX, sign_invite
from claudemesh.protocol.rotation import make_rotation
from claudemesh.protocol.sealing import SealedContext, encode_content
from tests.support.envelopes import (
    ALICE,
    BOB,
    MEMBER_ID,
    MESH_ID,
    NONCE,
    ULID_TEXT,
    build,
    build_topic,
    identity,
)

_AT_MS = 1_700_000_000_000
_SIGNATURE = to_base64(bytes(range(64)))
_SENDER = frames.DeliverySender(MEMBER_ID, "alice", ALICE.ed25519_pubkey)


@cache
def frame_texts() -> list[bytes]:
    """One frame of each type, and of each form that a type has."""
    sealed = build().to_dict()
    hello = frames.Hello(
        *(MESH_ID, ALICE.ed25519_pubkey, ALICE.key_id, "alice", "ab" * 32, "1.2.3", ULID_TEXT, False),
        *("127.0.0.1:7900", bytes(64)),
    )
    offer = {
        "client_message_id_dedupe": {
            "params": {
                "version": 2,
                "mode": "retention_scoped",
                "dedupe_retention_days": 30,
                "request_fingerprint": True,
            }
        },
        "concurrent_connection_policy": {"params": {"version": 1, "default_policy": "prefer_newest"}},
        "max_payload": {"params": {"version": 1, "inline_bytes": 65536, "blob_bytes": 1 << 20}},
        "key_epoch": {"params": {"version": 1, "max_concurrent_epochs": 2}},
    }
    accepted = {"broker_message_id": ULID_TEXT, "history_id": 5, "duplicate": False}
    limited = {"error": "rate_limited", "message": "Later.", "retry_after_ms": 1000, "scope": "destination"}
    made: list[frames.Frame] = [
        frames.Challenge(bytes(32), _AT_MS, "1.2.3", (1,)),
        hello,
        frames.HelloAck(MEMBER_ID, ULID_TEXT, {"slug": "prod"}, _AT_MS, ULID_TEXT),
        frames.FeatureRequest(("client_message_id_dedupe",), ("key_epoch",)),
        frames.FeatureResponse(offer, ("max_payload",)),
        frames.Send("row-1", sealed),
        frames.Send("row-2", build_topic().to_dict()),
        frames.SendResult(7, 201, accepted),
        frames.SendResult("7", 429, limited),
        frames.SendResult("7", 404, {"error": "destination_not_found", "message": "Gone."}),
        frames.Deliver(4, ULID_TEXT, 9, _SENDER, _AT_MS, sealed),
        frames.Sends((frames.Send("row-1", sealed), frames.Send("row-2", build_topic().to_dict()))),
        frames.SendResults((frames.SendResult("7", 201, accepted), frames.SendResult(8, 429, limited))),
        frames.Delivers((frames.Deliver(4, ULID_TEXT, 9, _SENDER, _AT_MS, sealed),)),
        frames.DeliverAck((1, 2, 3)),
        frames.Call("c1", "topic_list", {"limit": 5}),
        frames.Reply("c1", ok={"items": []}),
        frames.Reply("c1", error={"code": "topic_not_found", "message": "There is none."}),
        frames.Event("topic_created", {"topic": "all", "mode": "topic"}),
        frames.Event("member_added", _card()),
        frames.ErrorFrame("unknown_type", "No such type.", 5),
        frames.UnknownFrame("from_the_future", "x1"),
    ]
    return [frames.encode_frame(frame).encode() for frame in made]


@cache
def links() -> list[bytes]:
    """An invite with the name of its inviter, and one without."""
    made = [
        sign_invite(
            ALICE,
            broker_url=url,
            mesh_id=MESH_ID,
            slug="prod",
            invite_id=ULID_TEXT,
            role=role,
            expires_at_ms=_AT_MS,
            uses=uses,
            inviter=inviter,
        )
        for url, role, uses, inviter in (
            ("ws://127.0.0.1:7900", "member", 1, ("alice", MEMBER_ID)),
            ("wss://broker.example.org", "admin", 25, None),
        )
    ]
    return [invite.to_link().encode() for invite in made]


@cache
def invites() -> list[bytes]:
    """Each link, and the JSON that it holds."""
    held = [urlsafe_b64decode(link.removeprefix(LINK_PREFIX.encode()) + b"==") for link in links()]
    return [*links(), *held]


@cache
def envelopes() -> list[bytes]:
    """A dm, a topic post and a sealed queue post."""
    queue = Seal("secretbox", NONCE, ALICE.key_id, key_epoch=3)
    made = (
        build(),
        build(reply_to_id=None, mentions=(), priority="low"),
        build_topic(),
        build(destination_kind="queue", destination_ref="builds", seal=queue),
    )
    return [envelope.encode() for envelope in made]


@cache
def contents() -> list[bytes]:
    """Return sealed contents of a dm and of a topic, and of versions without context."""
    dm = SealedContext(MESH_ID, ALICE.ed25519_pubkey, BOB.ed25519_pubkey, "deploy-42", "dm")
    post = SealedContext(MESH_ID, ALICE.ed25519_pubkey, "all", ULID_TEXT, "topic")
    return [
        encode_content("deployed", b'{"build":7,"ok":[true,null,1.5]}', dm),
        encode_content("", b"", post),
        b'{"message":"older","meta":{"k":[1]}}',
    ]


@cache
def bodies() -> list[bytes]:
    """A body of every route, behind the byte that chooses it."""
    meta = {"build": 7, "ok": [True, None, 1.5]}
    send = {"to": "@bob", "message": "deployed", "priority": "now", "meta": meta}
    mentions = ["bob", BOB.ed25519_pubkey]
    more = {"reply_to_id": ULID_TEXT, "mentions": mentions, "client_message_id": "deploy-42"}
    join = {
        "invite": links()[0].decode(),
        "name": "bob",
        "ed25519_pubkey": BOB.ed25519_pubkey,
        "x25519_pubkey": BOB.x25519_pubkey,
        "proof": _SIGNATURE,
    }
    query = b"limit=10&after=5&order=desc&since=2026-01-02T03:04:05.678Z&topic=%23all&from=%40bob&unread=true"
    made: list[tuple[int, Any]] = [
        (0, {**send, **more}),
        (0, {"to": "#all", "message": "\u2026 \\u0000"}),
        (0, {"to": "queue:builds", "message": "", "meta": {}}),
        (1, {"topic": "all", "message": "hello", **more}),
        (2, {"message": "changed", "priority": "low", "meta": {"a": 1e21}}),
        (4, join),
        (5, {"new_client_message_id": "again-1", "patch": {"message": "m"}}),
        (6, {"ids": [ULID_TEXT], "as": "shown"}),
        (7, {"topic": "#all"}),
        (8, {"topic": "builds", "mode": "queue"}),
        (9, {"summary": "reviews", "status": "busy", "visible": True}),
        (10, {}),
    ]
    return [bytes([3]) + query, *(bytes([route]) + json.dumps(value).encode() for route, value in made)]


@cache
def replies() -> list[bytes]:
    """An answer to every call and an event of every kind, behind the byte that chooses the reader."""
    newer = identity("alice again")
    peer = {
        **_card(),
        "x25519_pubkey": newer.x25519_pubkey,
        "x25519_signature": _SIGNATURE,
        "key_id": ALICE.key_id,
        "role": "owner",
        "status": "active",
        "online": True,
        "presence_status": "busy",
        "summary": None,
        "visible": True,
        "last_seen_at": _AT_MS,
        "earlier_keys": [BOB.ed25519_pubkey],
        "rotations": [make_rotation(ALICE, newer, mesh_id=MESH_ID, rotated_at_ms=_AT_MS).to_dict()],
    }
    topic = {"topic": "all", "mode": "topic", "subscribed": True, "subscribers": 3, "created_at": _AT_MS}
    known = {"known": True, "broker_message_id": ULID_TEXT, "history_id": 7}
    page = {"gone": [MEMBER_ID], "version": "7-ab12", "since": "6-ab12"}
    lost = {"invite_id": ULID_TEXT, **peer}
    made: list[tuple[int, Any]] = [
        (0, {"items": [peer, {**peer, "role": "none"}]}),
        (1, {"items": [topic, {**topic, "created_at": None}]}),
        (2, {"topic": "all", "mode": "queue", "created": True}),
        (3, {"items": {"deploy-42": known, "deploy-43": {"known": False}}}),
        (4, _card()),
        (6, lost),
        (7, {"topic": "all", "mode": "queue"}),
        (8, {"of": "another version"}),
        (9, {**page, "items": [peer]}),
        (10, {"online": [MEMBER_ID], "offline": [], "whole": True, "at": _AT_MS}),
        (11, {"member_id": MEMBER_ID}),
        (12, {"member_id": MEMBER_ID}),
        (0, {**page, "items": [peer], "next": 3, "whole": True, "online": [MEMBER_ID]}),
    ]
    reason = b'\x08{"kind":"replaced_by_newer_connection","feature":"","detail":"another host"}'
    return [reason, *(bytes([reader]) + json.dumps(value).encode() for reader, value in made)]


def _card() -> dict[str, Any]:
    return {"member_id": MEMBER_ID, "name": "alice", "pubkey": ALICE.ed25519_pubkey}
