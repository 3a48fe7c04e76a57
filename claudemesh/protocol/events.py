"""Events of a broker: parsers of their data (docs/spec/protocol.md, Events). `BadReply` for wrong data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, TypeAlias

from claudemesh.protocol import fields
from claudemesh.protocol.base64 import to_base64
from claudemesh.protocol.fields import Json
from claudemesh.protocol.frames import Event
from claudemesh.protocol.ids import HEX_32, KEY_ID, MEMBER_NAME, SLUG, ULID, UUID_TEXT
from claudemesh.protocol.keys import SIGNATURE_BYTES
from claudemesh.protocol.replies import MAX_MEMBERS, PeerList, Read, peer_list, reader
from claudemesh.protocol.statements import Statement
from claudemesh.protocol.topic_keys import key_epoch_of
from claudemesh.protocol.wire import TOPIC_MODES, TopicMode

UNCONFIRMED: Final = "member_unconfirmed"
TOPIC_CREATED: Final = "topic_created"
TOPIC_DELETED: Final = "topic_deleted"
TOPIC_KEY_WANTED: Final = "topic_key_wanted"
TOPIC_KEY_CHANGED: Final = "topic_key_changed"
TOPIC_KEY_ADDED: Final = "topic_key_added"
TOPIC_REKEY_WANTED: Final = "topic_rekey_wanted"
MEMBERS_CHANGED: Final = "members_changed"
PRESENCE: Final = "presence"
MEMBER_RENAMED: Final = "member_renamed"
# To the revoked member itself, and to all others.
MEMBER_REVOKED: Final = "member_revoked"
KEYPAIR_REVOKED: Final = "keypair_revoked"
MESH_MOVED: Final = "mesh_moved"
MAX_PRESENT: Final = MAX_MEMBERS
_SINGLE: Final = ("peer_join", "peer_leave")
_ABOUT_KEYS: Final = frozenset((TOPIC_KEY_WANTED, TOPIC_KEY_CHANGED, TOPIC_KEY_ADDED, TOPIC_REKEY_WANTED))
_ABOUT_MEMBERS: Final = frozenset(
    {
        "member_added",
        "member_keypair_rotated",
        "member_updated",
        MEMBER_RENAMED,
        MEMBER_REVOKED,
        KEYPAIR_REVOKED,
        "member_clone_suspected",
        "member_concurrent_connection",
    }
)


@dataclass(frozen=True, slots=True)
class MemberEvent:
    """An event about one member; `event` is its name. A revocation by a member has its statement."""

    event: str
    member_id: str
    name: str
    pubkey: str
    statement: Statement | None = None


@dataclass(frozen=True, slots=True)
class PresenceEvent:
    """Members that came online or went offline, by id.

    `is_whole`: members that are not named are offline. `is_single`: the event is `peer_join` or `peer_leave`.
    `at_ms` is the time by the broker's wall clock, in Unix milliseconds.
    """

    online: tuple[str, ...]
    offline: tuple[str, ...]
    is_whole: bool = False
    is_single: bool = False
    at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class UnconfirmedMember:
    """A member that a restore of the broker's database has lost and that asks to be confirmed."""

    member_id: str
    name: str
    pubkey: str
    x25519_pubkey: str
    x25519_signature: bytes
    key_id: str
    invite_id: str | None

    def to_params(self) -> dict[str, Any]:
        """Return the parameters of `member_vouch` that describe the member."""
        return {**asdict(self), "x25519_signature": to_base64(self.x25519_signature)}


@dataclass(frozen=True, slots=True)
class TopicCreated:
    """A topic or queue that a member has created."""

    topic: str
    mode: TopicMode


@dataclass(frozen=True, slots=True)
class MeshMoved:
    """An owner has stated another address of the mesh; the call `mesh_moved` returns the statement."""


@dataclass(frozen=True, slots=True)
class TopicDeleted:
    """A topic or queue that a member has deleted."""

    topic: str


@dataclass(frozen=True, slots=True)
class TopicKeyEvent:
    """An event about the keys of a topic; `event` is its name.

    `topic_key_wanted`: the member `member_id` has no wrap of the epoch. `topic_key_changed`: the epoch is the
    current one now. `topic_key_added`: a wrap of the epoch for this member is at the broker.
    `topic_rekey_wanted`: the next epoch is to be made; `key_epoch` is None.
    """

    event: str
    topic: str
    key_epoch: int | None
    member_id: str | None = None


News: TypeAlias = (
    TopicDeleted
    | MeshMoved
    | MemberEvent
    | PresenceEvent
    | UnconfirmedMember
    | TopicCreated
    | TopicKeyEvent
    | PeerList
)


def parse_event(event: Event) -> News | None:
    """Return the parsed data of an event, None for an unknown event. `BadReply` names the wrong field."""
    return _parser(event.event)(event.data)


def _parser(name: str) -> Read[News | None]:
    @reader(name)
    def parse(data: Any) -> News | None:
        if name == UNCONFIRMED:
            return _unconfirmed(data)
        if name == MEMBERS_CHANGED:
            return peer_list(data, name)
        if name == TOPIC_CREATED:
            return TopicCreated(
                fields.matching(data, "topic", SLUG), fields.one_of(data, "mode", TOPIC_MODES)
            )
        if name == TOPIC_DELETED:
            return TopicDeleted(fields.matching(data, "topic", SLUG))
        if name in _ABOUT_KEYS:
            return _topic_key(name, data)
        if name == PRESENCE:
            return _presence(data)
        if name == MESH_MOVED:
            return MeshMoved()
        if name in _SINGLE:
            one = (fields.matching(data, "member_id", UUID_TEXT),)
            online, offline = (one, ()) if name == "peer_join" else ((), one)
            return PresenceEvent(online, offline, is_single=True)
        return _member(name, data) if name in _ABOUT_MEMBERS else None

    return parse


def _presence(data: Json) -> PresenceEvent:
    return PresenceEvent(
        fields.each(data, "online", fields.member_id, MAX_PRESENT),
        fields.each(data, "offline", fields.member_id, MAX_PRESENT),
        is_whole=fields.boolean(data, "whole"),
        at_ms=fields.optional_timestamp(data, "at"),
    )


def _topic_key(name: str, data: Json) -> TopicKeyEvent:
    return TopicKeyEvent(
        name,
        fields.matching(data, "topic", SLUG),
        None if name == TOPIC_REKEY_WANTED else key_epoch_of(data),
        fields.matching(data, "member_id", UUID_TEXT) if name == TOPIC_KEY_WANTED else None,
    )


def _member(name: str, data: Json) -> MemberEvent:
    return MemberEvent(
        name,
        fields.matching(data, "member_id", UUID_TEXT),
        fields.matching(data, "name", MEMBER_NAME),
        fields.matching(data, "pubkey", HEX_32),
        None if data.get("statement") is None else Statement.parse(data["statement"]),
    )


def _unconfirmed(data: Json) -> UnconfirmedMember:
    return UnconfirmedMember(
        fields.matching(data, "member_id", UUID_TEXT),
        fields.matching(data, "name", MEMBER_NAME),
        fields.matching(data, "pubkey", HEX_32),
        fields.matching(data, "x25519_pubkey", HEX_32),
        fields.binary(data, "x25519_signature", SIGNATURE_BYTES),
        fields.matching(data, "key_id", KEY_ID),
        None if data.get("invite_id") is None else fields.matching(data, "invite_id", ULID),
    )
