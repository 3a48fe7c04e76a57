"""Replies of a broker to calls: parsers to typed values (docs/spec/protocol.md, Calls).

A reader takes the `ok` of a `reply` frame and returns a value, or raises `BadReply`, which names the call and
the field. A caller passes the reader along with the call, so every reply is parsed before it is used. A wrong
entry in a list of independent entries is left out and listed in `faults`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final, TypeAlias, TypeVar

from claudemesh.protocol import fields
from claudemesh.protocol.errors import InvalidField
from claudemesh.protocol.fields import Json
from claudemesh.protocol.ids import HEX_32, KEY_ID, MEMBER_NAME, SLUG, ULID, UUID_TEXT
from claudemesh.protocol.keys import SIGNATURE_BYTES
from claudemesh.protocol.rotation import Rotation
from claudemesh.protocol.session_cards import SessionCard, parse_cards
from claudemesh.protocol.statements import MAX_STATEMENTS, Statement
from claudemesh.protocol.wire import MEMBER_STATUSES, ROLES, TOPIC_MODES, MemberStatus, Role, TopicMode

BAD_REPLY: Final = "bad_reply"
# Members and topics of a mesh, as far as a daemon follows its broker.
MAX_MEMBERS: Final = 200_000
# Ids in one call of `members_left`.
MEMBERS_ASKED: Final = 64
# Ids in one call of `members_seen`.
MEMBERS_SEEN: Final = 512
MAX_TOPICS: Final = 200_000
MAX_ENTRIES: Final = 200_000
MAX_EARLIER_KEYS: Final = 4096
SUMMARY_CHARACTERS: Final = 512
STATUS_CHARACTERS: Final = 64

_VERSION: Final = re.compile(r"[0-9]{1,18}-[0-9a-f]{1,64}")

T = TypeVar("T")
Read: TypeAlias = Callable[[Any], T]


class BadReply(InvalidField):
    """A reply with a wrong field; `field` names the reply and the path in it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(BAD_REPLY, field, message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A list without its wrong entries; `faults` has one error for each of them."""

    faults: tuple[BadReply, ...] = ()


@dataclass(frozen=True, slots=True)
class PeerEntry:
    """A member in the list of the broker. The signature of the x25519 key is not verified yet."""

    member_id: str
    name: str
    pubkey: str
    x25519_pubkey: str
    x25519_signature: bytes
    key_id: str
    role: Role
    status: MemberStatus
    online: bool
    presence_status: str | None
    summary: str | None
    visible: bool
    last_seen_at: int | None
    earlier_keys: tuple[str, ...]
    rotations: tuple[Rotation, ...] = ()
    ephemeral: bool = False
    statements: tuple[Statement, ...] = ()
    sessions: tuple[SessionCard, ...] = ()


@dataclass(frozen=True, slots=True)
class PeerList(Listing):
    """A page of the member list, or changes of it: the reply to `peers` and the event `members_changed`.

    `gone` are the ids of members that left. `version` is the version of the list after these changes, and
    `since` the one before. `is_whole`: the page belongs to a whole list, and a member on none of its pages is
    not in the mesh. `next` is the position of the following page, None on the last one. `online` are the ids
    of members that are online, if the call asked for them. Brokers without versions list all members at once.
    """

    items: tuple[PeerEntry, ...]
    gone: tuple[str, ...] = ()
    version: str | None = None
    since: str | None = None
    next: int | None = None
    is_whole: bool = False
    online: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TopicEntry:
    """A topic or queue in the list of the broker.

    `key_epoch` is the current epoch, None without one. `members_without_key` are subscribers without a wrap
    of it, None when the broker has not counted them.
    """

    topic: str
    mode: TopicMode
    subscribed: bool
    subscribers: int | None
    created_at: int | None
    sealed: bool = False
    key_epoch: int | None = None
    members_without_key: int | None = None


@dataclass(frozen=True, slots=True)
class TopicList(Listing):
    """The reply to `topic_list`; `next` is the name after which the following page begins."""

    items: tuple[TopicEntry, ...]
    next: str | None = None


@dataclass(frozen=True, slots=True)
class TopicMade:
    """The reply to `topic_create`; `mode` is that of the existing topic when it was not created."""

    topic: str
    mode: TopicMode
    created: bool


@dataclass(frozen=True, slots=True)
class KnownSend:
    """A send that the broker has accepted, with its ids."""

    broker_message_id: str
    history_id: int


SendStatuses: TypeAlias = Mapping[str, KnownSend | None]


def reader(name: str) -> Callable[[Callable[[Any], T]], Read[T]]:
    """Turn a parser into a reader: `InvalidField` becomes `BadReply`, which names the reply too."""

    def make(parse: Callable[[Any], T]) -> Read[T]:
        @wraps(parse)
        def read(value: Any) -> T:
            try:
                return parse(value)
            except InvalidField as error:
                raise _bad(name, error) from error

        return read

    return make


def entries(
    value: Json, name: str, parse: Callable[[Json], T], reply: str
) -> tuple[tuple[T, ...], tuple[BadReply, ...]]:
    """Parse a list of independent objects; return the valid ones and the faults of the others."""
    found = value.get(name)
    if not isinstance(found, list) or len(found) > MAX_ENTRIES:
        fields.refuse(name, f"be a list of at most {MAX_ENTRIES}")
    right: list[T] = []
    faults: list[BadReply] = []
    for place, item in enumerate(found):
        try:
            right.append(parse(record(item, f"{name}[{place}]")))
        except InvalidField as error:
            faults.append(_bad(f"{reply}.{name}[{place}]", error))
    return tuple(right), tuple(faults)


def record(value: Any, field: str) -> Json:
    """Return a JSON object."""
    if not isinstance(value, dict):
        fields.refuse(field, "be a JSON object")
    return value


def nothing(value: Any) -> None:
    """Read a reply whose content is not used."""


@reader("peers")
def peers(value: Any) -> PeerList:
    """Read a page of the member list."""
    return peer_list(record(value, "ok"), "peers")


def peer_list(found: Json, reply: str) -> PeerList:
    """Parse a page of the member list or changes of it. `InvalidField`."""
    items, faults = entries(found, "items", peer_entry, reply)
    return PeerList(
        items,
        gone=_member_ids(found, "gone"),
        version=_version(found, "version"),
        since=_version(found, "since"),
        next=None if found.get("next") is None else fields.integer(found, "next"),
        is_whole="whole" in found and fields.boolean(found, "whole"),
        online=_member_ids(found, "online"),
        faults=faults,
    )


@reader("members_left")
def members_left(value: Any) -> PeerList:
    """Read the reply to `members_left`."""
    items, faults = entries(record(value, "ok"), "items", peer_entry, "members_left")
    return PeerList(tuple(one for one in items if one.status == "left"), faults=faults)


@reader("members_seen")
def members_seen(value: Any) -> dict[str, int]:
    """Read the reply to `members_seen`: when members were seen last, by their ids."""
    items, _ = entries(record(value, "ok"), "items", _seen, "members_seen")
    return dict(items)


def _seen(item: Json) -> tuple[str, int]:
    return fields.matching(item, "member_id", UUID_TEXT), fields.timestamp(item, "last_seen_at")


def version_number(version: str | None) -> int:
    """Return the number in a version of the list, which grows with each change; 0 for None."""
    return 0 if version is None else int(version.partition("-")[0])


def _version(value: Json, name: str) -> str | None:
    return None if value.get(name) is None else fields.matching(value, name, _VERSION)


def _member_ids(value: Json, name: str) -> tuple[str, ...]:
    if name not in value:
        return ()
    return fields.each(value, name, fields.member_id, MAX_MEMBERS)


def peer_entry(item: Json) -> PeerEntry:
    """Parse one entry of the member list. `InvalidField`."""
    return PeerEntry(
        member_id=fields.matching(item, "member_id", UUID_TEXT),
        name=fields.matching(item, "name", MEMBER_NAME),
        pubkey=fields.matching(item, "pubkey", HEX_32),
        x25519_pubkey=fields.matching(item, "x25519_pubkey", HEX_32),
        x25519_signature=fields.binary(item, "x25519_signature", SIGNATURE_BYTES),
        key_id=fields.matching(item, "key_id", KEY_ID),
        role=fields.one_of(item, "role", ROLES),
        status=fields.one_of(item, "status", MEMBER_STATUSES),
        online=fields.boolean(item, "online"),
        presence_status=fields.optional_text(item, "presence_status", STATUS_CHARACTERS),
        summary=fields.optional_text(item, "summary", SUMMARY_CHARACTERS),
        visible=fields.boolean(item, "visible"),
        last_seen_at=fields.optional_timestamp(item, "last_seen_at"),
        earlier_keys=fields.each(item, "earlier_keys", fields.pubkey, MAX_EARLIER_KEYS),
        rotations=_rotations(item) if "rotations" in item else (),
        ephemeral="ephemeral" in item and fields.boolean(item, "ephemeral"),
        statements=_statements(item) if "statements" in item else (),
        sessions=parse_cards(item, "sessions") if "sessions" in item else (),
    )


def _statements(item: Json) -> tuple[Statement, ...]:
    """Return the statements of known kinds. One of a later release is left out, not the member."""
    found = fields.each(item, "statements", _statement_or_none, MAX_STATEMENTS)
    return tuple(one for one in found if one is not None)


def _statement_or_none(value: object, field: str) -> Statement | None:
    try:
        return Statement.parse(value)
    except InvalidField:
        return None


def _rotations(item: Json) -> tuple[Rotation, ...]:
    return fields.each(item, "rotations", lambda value, field: Rotation.parse(value), MAX_EARLIER_KEYS)


@reader("topic_list")
def topic_list(value: Any) -> TopicList:
    """Read a page of the list of topics and queues."""
    found = record(value, "ok")
    items, faults = entries(found, "items", _topic_entry, "topic_list")
    following = None if found.get("next") is None else fields.matching(found, "next", SLUG)
    if following is not None and not items:
        fields.refuse("items", "hold a topic, because another page follows")
    return TopicList(items, following, faults=faults)


def _topic_entry(item: Json) -> TopicEntry:
    return TopicEntry(
        topic=fields.matching(item, "topic", SLUG),
        mode=fields.one_of(item, "mode", TOPIC_MODES),
        subscribed=fields.boolean(item, "subscribed"),
        subscribers=_optional_integer(item, "subscribers"),
        created_at=fields.optional_timestamp(item, "created_at"),
        # Brokers of version 0.1.0 list neither.
        sealed="sealed" in item and fields.boolean(item, "sealed"),
        key_epoch=_optional_integer(item, "key_epoch"),
        members_without_key=_optional_integer(item, "members_without_key"),
    )


def _optional_integer(item: Json, name: str) -> int | None:
    return None if item.get(name) is None else fields.integer(item, name)


@reader("topic_create")
def topic_made(value: Any) -> TopicMade:
    """Read the reply to `topic_create`."""
    found = record(value, "ok")
    return TopicMade(
        topic=fields.matching(found, "topic", SLUG),
        mode=fields.one_of(found, "mode", TOPIC_MODES),
        created=fields.boolean(found, "created"),
    )


@reader("mesh_moved")
def move_reply(value: Any) -> Statement | None:
    """Parse the answer to `mesh_moved`: the statement of the latest move, None without one."""
    found = record(value, "mesh_moved").get("statement")
    return None if found is None else Statement.parse(found)


@reader("rotate_keys")
def keys_rotated(value: Any) -> str:
    """Read the reply to `rotate_keys`: the ed25519 key that is current now."""
    return fields.matching(record(value, "ok"), "pubkey", HEX_32)


@dataclass(frozen=True, slots=True)
class TopicRemoved:
    """The reply to `topic_delete`; `dropped` messages of a queue are delivered to no member."""

    topic: str
    mode: TopicMode
    dropped: int


@reader("topic_delete")
def topic_removed(value: Any) -> TopicRemoved:
    """Read the reply to `topic_delete`."""
    found = record(value, "ok")
    return TopicRemoved(
        topic=fields.matching(found, "topic", SLUG),
        mode=fields.one_of(found, "mode", TOPIC_MODES),
        dropped=fields.integer(found, "dropped"),
    )


@reader("topics_deleted")
def topics_deleted(value: Any) -> tuple[str, ...]:
    """Read the reply to `topics_deleted`: names of topics."""
    return fields.each(record(value, "ok"), "items", _topic_name, MAX_ENTRIES)


def _topic_name(value: Any, field: str) -> str:
    return fields.matching({field: value}, field, SLUG)


def send_status_of(client_message_ids: Sequence[str]) -> Read[SendStatuses]:
    """Return the reader of `send_status` for these ids. None means that the broker has no such send."""

    @reader("send_status")
    def read(value: Any) -> SendStatuses:
        items = fields.object_of(record(value, "ok"), "items")
        return {one: _send_status(record(items.get(one), "items")) for one in client_message_ids}

    return read


def _send_status(item: Json) -> KnownSend | None:
    if not fields.boolean(item, "known"):
        return None
    return KnownSend(fields.matching(item, "broker_message_id", ULID), fields.integer(item, "history_id"))


def _bad(reply: str, error: InvalidField) -> BadReply:
    return BadReply(f"{reply}.{error.field}", f"The broker's answer is wrong in {reply}: {error.message}")
