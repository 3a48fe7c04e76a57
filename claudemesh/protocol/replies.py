"""Replies of a broker to calls, as typed values: parsed as frames are, field by field, whatever was sent.

A reader takes the `ok` of a `reply` frame and returns a value, or raises `BadReply`, which names the call and
the field. Callers hand the reader to the link together with the call, so no reply is used that was not read.
In a list of independent entries a wrong one is left out and counted in `faults`; the others stand.
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
from claudemesh.protocol.frames import announced as announced
from claudemesh.protocol.ids import HEX_32, KEY_ID, MEMBER_NAME, SLUG, ULID, UUID_TEXT
from claudemesh.protocol.keys import SIGNATURE_BYTES
from claudemesh.protocol.rotation import Rotation
from claudemesh.protocol.wire import MEMBER_STATUSES, ROLES, TOPIC_MODES, MemberStatus, Role, TopicMode

BAD_REPLY: Final = "bad_reply"
MAX_ENTRIES: Final = 1_000_000
MAX_EARLIER_KEYS: Final = 4096
SUMMARY_CHARACTERS: Final = 512
STATUS_CHARACTERS: Final = 64

# The earlier name of TOPIC_MODES.
MODES: Final = TOPIC_MODES

_VERSION: Final = re.compile(r"[0-9]{1,18}-[0-9a-f]{1,64}")

T = TypeVar("T")
Read: TypeAlias = Callable[[Any], T]


class BadReply(InvalidField):
    """A reply that is not what the protocol gives to it; `field` names the reply and the place in it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(BAD_REPLY, field, message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A list whose wrong entries were left out; `faults` says what was wrong with each."""

    faults: tuple[BadReply, ...] = ()


@dataclass(frozen=True, slots=True)
class PeerEntry:
    """A member as the broker lists it. The signature that binds the x25519 key is not verified yet."""

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


@dataclass(frozen=True, slots=True)
class PeerList(Listing):
    """The answer to `peers`, and the event `members_changed`: members that are or have changed, and who left.

    `version` is the list's with these taken over; a change begins at `since`. `is_whole`: the items belong to
    a whole list, and who is on none of its pages is not in it. `next` is where the following page begins,
    None on the last one. `online` are members that are online, where the broker was asked for them. A broker
    without versions lists everybody at once.
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
    """A topic or queue as the broker lists it."""

    topic: str
    mode: TopicMode
    subscribed: bool
    subscribers: int | None
    created_at: int | None


@dataclass(frozen=True, slots=True)
class TopicList(Listing):
    """The answer to `topic_list`; `next` is the name behind which the following page begins."""

    items: tuple[TopicEntry, ...]
    next: str | None = None


@dataclass(frozen=True, slots=True)
class TopicMade:
    """The answer to `topic_create`; `mode` is the topic's own when it was there already."""

    topic: str
    mode: TopicMode
    created: bool


@dataclass(frozen=True, slots=True)
class KnownSend:
    """A send that the broker has accepted, under these ids."""

    broker_message_id: str
    history_id: int


SendStatuses: TypeAlias = Mapping[str, KnownSend | None]


def reader(name: str) -> Callable[[Callable[[Any], T]], Read[T]]:
    """Make a reader of a parser: whatever field is wrong is a `BadReply` that names the reply too."""

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
    """Parse a list of independent objects; return those that are right, and the faults of the others."""
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
    """Read the reply to a call that only succeeds or fails: its content is not used."""


@reader("peers")
def peers(value: Any) -> PeerList:
    """Read a page of the list of members."""
    return peer_list(record(value, "ok"), "peers")


def peer_list(found: Json, reply: str) -> PeerList:
    """Parse members that are listed or changed. `InvalidField`."""
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


def version_number(version: str | None) -> int:
    """Return the number of a version of the list: a later one has a larger number. 0 for none."""
    return 0 if version is None else int(version.partition("-")[0])


def _version(value: Json, name: str) -> str | None:
    return None if value.get(name) is None else fields.matching(value, name, _VERSION)


def _member_ids(value: Json, name: str) -> tuple[str, ...]:
    if name not in value:
        return ()
    return fields.each(value, name, fields.member_id, MAX_ENTRIES)


def peer_entry(item: Json) -> PeerEntry:
    """Parse one member of a list. `InvalidField`."""
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
    )


def _rotations(item: Json) -> tuple[Rotation, ...]:
    return fields.each(item, "rotations", lambda value, field: Rotation.parse(value), MAX_EARLIER_KEYS)


@reader("topic_list")
def topic_list(value: Any) -> TopicList:
    """Read the list of topics and queues."""
    found = record(value, "ok")
    items, faults = entries(found, "items", _topic_entry, "topic_list")
    following = None if found.get("next") is None else fields.matching(found, "next", SLUG)
    return TopicList(items, following, faults=faults)


def _topic_entry(item: Json) -> TopicEntry:
    return TopicEntry(
        topic=fields.matching(item, "topic", SLUG),
        mode=fields.one_of(item, "mode", TOPIC_MODES),
        subscribed=fields.boolean(item, "subscribed"),
        subscribers=None if item.get("subscribers") is None else fields.integer(item, "subscribers"),
        created_at=fields.optional_timestamp(item, "created_at"),
    )


@reader("topic_create")
def topic_made(value: Any) -> TopicMade:
    """Read what became of a topic that was to be made."""
    found = record(value, "ok")
    return TopicMade(
        topic=fields.matching(found, "topic", SLUG),
        mode=fields.one_of(found, "mode", TOPIC_MODES),
        created=fields.boolean(found, "created"),
    )


def send_status_of(client_message_ids: Sequence[str]) -> Read[SendStatuses]:
    """Return the reader of `send_status` for these ids: each must be answered, None means not known."""

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
