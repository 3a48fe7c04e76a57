"""Send requests of local programs, parsed and validated into frozen values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson
from msgspec import Struct
from msgspec.structs import replace

from claudemesh.protocol.attachments import Attachment
from claudemesh.protocol.canonical import canonical_meta
from claudemesh.protocol.errors import InvalidField
from claudemesh.protocol.ids import (
    check_client_message_id,
    check_member_name,
    check_session,
    check_topic,
    check_ulid,
)
from claudemesh.protocol.receipts import WISHES, Receipt, ReceiptState
from claudemesh.protocol.sealing import MAX_HOPS
from claudemesh.protocol.traceparent import valid_traceparent
from claudemesh.protocol.wire import PRIORITY_RANK, DestinationKind, Priority
from claudemesh.runtime.destinations import QUEUE_MARK, TOPIC_MARK

_KEY = re.compile(r"[0-9a-f]{64}\Z")
_COMMON = frozenset(
    {
        *("message", "priority", "meta", "reply_to_id", "mentions", "client_message_id"),
        *("from_session", "receipt", "hops", "traceparent"),
    }
)
SEND_FIELDS = _COMMON | {"to"}
POST_FIELDS = _COMMON | {"topic"}
CHANGE_FIELDS = frozenset({"message", "meta", "priority"})
MAX_MENTIONS = 64
MAX_TRACEPARENT = 255


class Target(Struct, frozen=True):
    """The target of a send: a member by `name` or by key (`ref`), or a topic or queue by `ref`.

    `session` is the session of the member that the message is for, None for its host.
    """

    kind: DestinationKind
    ref: str | None = None
    name: str | None = None
    session: str | None = None


class SendRequest(Struct, frozen=True):
    """A valid send as the caller requested it. Its target is not resolved yet and may not exist."""

    target: Target
    message: str
    priority: Priority = "next"
    # The meta as JSON that is sealed, and in the canonical form that is fingerprinted. Both are text,
    # because thousands of objects would slow the garbage collector. Both are empty without a meta.
    meta_json: bytes = b""
    canonical_meta: bytes = b""
    reply_to_id: str | None = None
    mentions: tuple[Target, ...] = ()
    client_message_id: str | None = None
    # Files that are at the broker already. A caller gives a path instead (daemon/files/).
    attachments: tuple[Attachment, ...] = ()
    # The session of this host that sends.
    from_session: str | None = None
    # The receipt that it asks for.
    receipt: ReceiptState | None = None
    # Automatic answers that led to it, 0 for the message of a person.
    hops: int = 0
    # The position in a trace that the header or the field `traceparent` gives. It is no part of the
    # fingerprint: a retry within another trace is the same send.
    traceparent: str | None = None
    # A message of receipts, made by the daemon itself.
    receipts: tuple[Receipt, ...] = ()
    # The names that a long text mentions, each in its spellings (mentions.py). None: those in `message`.
    named: tuple[tuple[str, ...], ...] | None = None

    @property
    def meta(self) -> dict[str, Any] | None:
        """The meta as a value."""
        return orjson.loads(self.meta_json) if self.meta_json else None


def parse_send(
    body: Mapping[str, Any], header_key: str | None = None, traceparent: str | None = None
) -> SendRequest:
    """Parse the body of `POST /v1/send`. `header_key` is the Idempotency-Key; it has precedence over the
    body's id, and so has `traceparent`. An invalid one is ignored.

    Raise `InvalidField` with the name of the field and a sentence that states the allowed values.
    """
    _refuse_unknown(body, SEND_FIELDS)
    return _parse(body, parse_target(_required(body, "to")), header_key, traceparent)


def parse_post(
    body: Mapping[str, Any], header_key: str | None = None, traceparent: str | None = None
) -> SendRequest:
    """Parse the body of `POST /v1/topic/post`, as `parse_send` does."""
    _refuse_unknown(body, POST_FIELDS)
    topic = _required(body, "topic")
    marked = topic if topic.startswith((QUEUE_MARK, TOPIC_MARK)) else f"{TOPIC_MARK}{topic}"
    return _parse(body, parse_target(marked, "topic"), header_key, traceparent)


def parse_changes(changes: object) -> dict[str, Any]:
    """Parse the changes of a pre-send hook: message, meta or priority. Raise `InvalidField`."""
    if not isinstance(changes, dict):
        raise InvalidField("invalid_field", "changes", "Print a JSON object.")
    _refuse_unknown(changes, CHANGE_FIELDS)
    found: dict[str, Any] = {}
    if "message" in changes:
        found["message"] = _required(changes, "message", allow_empty=True)
    if "priority" in changes:
        found["priority"] = _priority(changes["priority"])
    if "meta" in changes:
        found |= meta_fields(changes["meta"])
    return found


def meta_fields(meta: object) -> dict[str, Any]:
    """Return a meta as fields of a `SendRequest`. Raise `ProtocolError` invalid_meta or
    meta_not_canonical."""
    canonical = canonical_meta(meta)
    return {"meta_json": orjson.dumps(meta) if canonical else b"", "canonical_meta": canonical}


def parse_target(to: str, field: str = "to") -> Target:
    """Read `@name`, `name`, a 64-hex key, `#topic` or `queue:name`; the inverse of `spell_destination`.

    A session of a member follows the member: `name/session`.
    """
    if to.startswith(TOPIC_MARK):
        return Target("topic", ref=check_topic(to.removeprefix(TOPIC_MARK), field))
    if to.startswith(QUEUE_MARK):
        return Target("queue", ref=check_topic(to.removeprefix(QUEUE_MARK), field))
    member, slash, session = to.partition("/")
    target = _parse_member(member, field)
    return replace(target, session=check_session(session, field)) if slash else target


def check_topic_or_queue(text: str, field: str = "topic") -> str:
    """Return the name in `name`, `#name` or `queue:name`. A topic and a queue cannot have the same name."""
    return check_topic(text.removeprefix(TOPIC_MARK).removeprefix(QUEUE_MARK), field)


def _parse_member(text: str, field: str) -> Target:
    if _KEY.match(text):
        return Target("dm", ref=text)
    return Target("dm", name=check_member_name(text.removeprefix("@"), field))


def _parse(
    body: Mapping[str, Any], target: Target, header_key: str | None, traceparent: str | None
) -> SendRequest:
    meta = body.get("meta")
    reply_to_id = body.get("reply_to_id")
    body_id = body.get("client_message_id")
    from_session = body.get("from_session")
    if body_id is not None:
        check_client_message_id(body_id)
    own_id = body_id if header_key is None else check_client_message_id(header_key)
    return SendRequest(
        target=target,
        message=_required(body, "message", allow_empty=True),
        priority=_priority(body.get("priority")),
        **meta_fields(meta),
        reply_to_id=None if reply_to_id is None else check_ulid(reply_to_id, "reply_to_id"),
        mentions=_mentions(body.get("mentions")),
        client_message_id=own_id,
        from_session=None if from_session is None else check_session(from_session, "from_session"),
        receipt=_receipt(body.get("receipt")),
        hops=_hops(body.get("hops")),
        traceparent=valid_traceparent(_traceparent(body) if traceparent is None else traceparent),
    )


def _refuse_unknown(body: Mapping[str, Any], known: frozenset[str]) -> None:
    if body.keys() <= known:
        return
    unknown = min(body.keys() - known)
    allowed = ", ".join(sorted(known))
    raise InvalidField(
        "unknown_field", unknown[:64], f"There is no such field here; the fields are {allowed}."
    )


def _required(body: Mapping[str, Any], field: str, *, allow_empty: bool = False) -> str:
    if field not in body:
        raise InvalidField("missing_field", field, f"Give {field}.")
    value = body[field]
    if not isinstance(value, str) or not (value or allow_empty):
        raise InvalidField(
            "invalid_field", field, f"{field} must be a string{'' if allow_empty else ', not empty'}."
        )
    return value


def _priority(value: object) -> Priority:
    if value is None:
        return "next"
    if not isinstance(value, str) or value not in PRIORITY_RANK:
        raise InvalidField("invalid_field", "priority", "priority must be one of now, next, low.")
    return value


def _receipt(value: object) -> ReceiptState | None:
    if value is None:
        return None
    if not isinstance(value, str) or value not in WISHES:
        raise InvalidField("invalid_field", "receipt", f"receipt must be one of {', '.join(WISHES)}.")
    return WISHES[value]


def _hops(value: object) -> int:
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value <= MAX_HOPS:
        raise InvalidField("invalid_field", "hops", f"hops must be a whole number from 0 to {MAX_HOPS}.")
    return value


def _traceparent(body: Mapping[str, Any]) -> str | None:
    """Return the position in a trace, which may not be valid."""
    value = body.get("traceparent")
    if not isinstance(value, str | None) or len(value or "") > MAX_TRACEPARENT:
        text = f"traceparent must be a string of at most {MAX_TRACEPARENT} characters."
        raise InvalidField("invalid_field", "traceparent", text)
    return value


def _mentions(value: object) -> tuple[Target, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_MENTIONS:
        raise InvalidField(
            "invalid_field", "mentions", f"mentions must be a list of at most {MAX_MENTIONS} members."
        )
    targets = []
    for index, item in enumerate(value):
        if not isinstance(item, str):
            raise InvalidField("invalid_field", f"mentions[{index}]", "A mention is a member's name or key.")
        targets.append(_parse_member(item, f"mentions[{index}]"))
    return tuple(targets)
