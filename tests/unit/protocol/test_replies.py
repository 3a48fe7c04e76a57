"""Replies and events of a broker: typed values, or an error that names the field."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.protocol import events, history_replies, invite_replies, replies, topic_key_replies
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.frames import Event
from claudemesh.protocol.replies import BadReply, KnownSend
from claudemesh.protocol.topic_keys import TopicKey, make_wrap, sign_epoch
from tests.support.daemon import person
from tests.support.envelopes import ALICE, MESH_ID, NONCE, ULID_TEXT

BOB = person("bob")
TOPIC = {
    "topic": "all",
    "mode": "topic",
    "subscribed": True,
    "subscribers": 1,
    "created_at": 0,
    "sealed": True,
    "key_epoch": 1,
    "members_without_key": 2,
}
INVITE = {
    "invite_id": ULID_TEXT,
    "role": "member",
    "created_by": "a" * 64,
    "expires_at": 0,
    "uses": 1,
    "max_uses": 2,
    "revoked_at": 0,
}
KNOWN = {"known": True, "broker_message_id": ULID_TEXT, "history_id": 7}
EPOCH = sign_epoch(ALICE, MESH_ID, TopicKey("all", 2, bytes(32)), "a" * 64)
WRAP = make_wrap(
    ALICE,
    MESH_ID,
    TopicKey("all", 2, bytes(32)),
    recipient=BOB.identity.ed25519_pubkey,
    shared=bytes(32),
    nonce=NONCE,
)
KEYS = {
    "topic": "all",
    "mode": "topic",
    "current": {**EPOCH.to_dict(), "created_at": 7},
    "epochs": [EPOCH.to_dict()],
    "rekey_wanted": False,
    "wraps": [WRAP.to_dict()],
    "missing": [BOB.entry()],
    "missing_more": False,
}
HISTORY = {
    "items": [
        {
            "broker_message_id": ULID_TEXT,
            "history_id": 7,
            "sender": {name: BOB.entry()[name] for name in ("member_id", "name", "pubkey")},
            "accepted_at": 1_780_000_000_000,
            "envelope": {"body": "sealed"},
        }
    ],
    "more": False,
    "pruned_before": 0,
}
CARD = {name: BOB.entry()[name] for name in ("member_id", "name", "pubkey")}
LOST = {
    name: BOB.entry()[name]
    for name in ("member_id", "name", "pubkey", "x25519_pubkey", "x25519_signature", "key_id")
}

# A right answer of each kind, and its reader.
READERS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "peers": (replies.peers, {"items": [BOB.entry()]}),
    "members_left": (replies.members_left, {"items": [BOB.entry(status="left")]}),
    "members_seen": (
        replies.members_seen,
        {"items": [{"member_id": BOB.entry()["member_id"], "last_seen_at": 1_700_000_000_000}]},
    ),
    "topic_list": (replies.topic_list, {"items": [TOPIC]}),
    "topic_create": (replies.topic_made, {"topic": "all", "mode": "queue", "created": True}),
    "topic_delete": (replies.topic_removed, {"topic": "all", "mode": "queue", "dropped": 1}),
    "topics_deleted": (replies.topics_deleted, {"items": ["all"]}),
    "invite_list": (invite_replies.invite_list, {"items": [INVITE], "next": ULID_TEXT}),
    "history": (history_replies.history_page, HISTORY),
    "topic_key": (topic_key_replies.topic_keys, KEYS),
    "topic_epoch_create": (topic_key_replies.epoch_created, {"key_epoch": 1}),
    "topic_wrap_add": (topic_key_replies.wraps_added, {"added": 3}),
    "topic_rekey": (topic_key_replies.rekey_noted, {"rekey_wanted": True}),
    "send_status": (replies.send_status_of(["id-1"]), {"items": {"id-1": KNOWN}}),
    **{
        name: (lambda data, name=name: events.parse_event(Event(name, data)), data)
        for name, data in {
            "peer_join": CARD,
            "member_added": {**CARD, "role": "member"},
            "member_unconfirmed": LOST,
            "topic_created": {"topic": "all", "mode": "topic"},
            "topic_deleted": {"topic": "all"},
            "topic_key_wanted": {"topic": "all", "key_epoch": 1, "member_id": BOB.member_id},
            "topic_key_changed": {"topic": "all", "key_epoch": 1},
            "topic_key_added": {"topic": "all", "key_epoch": 1},
            "topic_rekey_wanted": {"topic": "all"},
        }.items()
    },
}
REPLIES = (
    "peers",
    "topic_list",
    "topic_create",
    "topic_delete",
    "topics_deleted",
    "invite_list",
    "send_status",
    "history",
    "topic_key",
    "topic_epoch_create",
    "topic_wrap_add",
    "topic_rekey",
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(2**63, 2**200)
    | st.floats()
    | st.text()
    | st.sampled_from([ULID_TEXT, "a" * 64, "0" * 10_000, -1, 1e300]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All paths in a JSON value, the root included."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


def changed(value: Any, path: tuple[Any, ...], put: Any) -> Any:
    """A copy with another value at one path."""
    if not path:
        return put
    copy = deepcopy(value)
    at = copy
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = put
    return copy


@pytest.mark.parametrize("kind", READERS)
def test_a_valid_reply_is_read(kind: str) -> None:
    """Without faults."""
    read, right = READERS[kind]
    found = read(right)
    assert found is not None
    assert getattr(found, "faults", ()) == ()


@pytest.mark.parametrize("kind", READERS)
@given(data=st.data())
def test_arbitrary_json_raises_nothing_but_a_bad_reply(kind: str, data: st.DataObject) -> None:
    """In place of the reply, of an entry, or of one field."""
    read, right = READERS[kind]
    # The data of an event is an object: the frame says so.
    where = [place for place in places(right) if place or kind in REPLIES]
    mutant = changed(right, data.draw(st.sampled_from(where)), data.draw(JSON))
    try:
        read(mutant)
    except BadReply as error:
        assert error.code == "bad_reply"
        assert error.field.startswith(kind)
        assert kind in error.message


WRONG: dict[str, list[Any]] = {
    "member_id": [None, {}, "?", 5, BOB.member_id.upper()],
    "name": [None, {}, "", "a b", "x" * 64, "a\n"],
    "pubkey": [None, [], "A" * 64, "a" * 63],
    "x25519_pubkey": [None, [], "A" * 64, "a" * 63],
    "x25519_signature": [None, {}, "", "AAAA", "A" * 88],
    "key_id": [None, {}, "k_", ULID_TEXT],
    "role": [None, {}, "root", ["member"]],
    "status": [None, {}, "gone", True],
    "online": [None, 1, "yes", {}],
    "presence_status": [5, {}, "x" * 65, "a\x1b[0m"],
    "summary": [5, {}, "x" * 513, "a\nb"],
    "visible": [None, 1, "yes", {}],
    "last_seen_at": [{}, "5", True, -1, 1.5, 10**17, 2**70],
    "earlier_keys": [None, {}, "?", [None], ["A" * 64], ["a" * 64] * 4097],
}


def test_every_field_of_a_member_has_wrong_values_here() -> None:
    """A new field needs wrong values here too."""
    assert set(WRONG) == set(BOB.entry())


@pytest.mark.parametrize(("field", "wrong"), [(field, wrong) for field in WRONG for wrong in WRONG[field]])
def test_a_member_with_a_wrong_field_is_left_out_and_the_others_stand(field: str, wrong: Any) -> None:
    """The entries are independent."""
    found = replies.peers({"items": [BOB.entry(**{field: wrong}), person("ann").entry()]})
    assert [entry.name for entry in found.items] == ["ann"]
    assert [fault.field for fault in found.faults] == [f"peers.items[0].{field}"]


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        {},
        {"items": []},
        {"items": {}},
        {"items": {"id-1": None}},
        {"items": {"id-1": {"known": "no"}}},
        {"items": {"id-1": {"known": True, "broker_message_id": "x", "history_id": 1}}},
        {"items": {"id-1": {"known": True, "broker_message_id": ULID_TEXT, "history_id": True}}},
        {"items": {"id-1": {"known": True, "broker_message_id": ULID_TEXT, "history_id": 2**70}}},
    ],
)
def test_an_answer_about_other_sends_is_none(wrong: Any) -> None:
    """A reply without an answer for each id is refused."""
    with pytest.raises(BadReply, match="send_status"):
        replies.send_status_of(["id-1"])(wrong)


def test_a_send_is_known_under_its_ids_or_not_at_all() -> None:
    """Other ids in the reply are not used."""
    items = {"id-1": KNOWN, "id-2": {"known": False}, "id-3": "?"}
    found = replies.send_status_of(["id-1", "id-2"])({"items": items})
    assert found == {"id-1": KnownSend(ULID_TEXT, 7), "id-2": None}


def test_an_event_of_a_later_version_says_nothing() -> None:
    """It is not an error, and nothing is passed on."""
    assert events.parse_event(Event("from_the_future", {"x": {"y": []}})) is None


def test_a_bad_reply_is_a_protocol_error_that_asks_to_try_again_later() -> None:
    """The local API answers it with 503."""
    with pytest.raises(ProtocolError) as caught:
        replies.topic_made({"topic": "all", "mode": "fax", "created": True})
    assert (caught.value.code, caught.value.status) == ("bad_reply", 503)
    assert caught.value.fields == {"field": "topic_create.mode"}


def test_a_wrap_of_an_epoch_that_is_not_stated_is_left_out() -> None:
    """There is no commitment that it could open to."""
    other = {**WRAP.to_dict(), "key_epoch": 5}
    found = topic_key_replies.topic_keys({**KEYS, "wraps": [other, WRAP.to_dict()]})
    assert found.wraps == (WRAP,)
    assert [fault.field for fault in found.faults] == ["topic_key.wraps[0].key_epoch"]
