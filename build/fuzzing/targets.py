"""The targets: for each kind of input a function of bytes, which raises when a promise is broken.

A target knows the refusals that its parser documents and lets them pass; any other exception is a finding.
Accepted input is spelled and parsed again, and has to come back as it was.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

import msgspec
import orjson

from claudemesh.broker.admission import signature_of, text_of, verified_invite
from claudemesh.broker.http.schemas import JoinBody, given
from claudemesh.daemon.api import schemas, schemas_outbox
from claudemesh.daemon.api.parameters import member, topic
from claudemesh.daemon.outbox.request import parse_changes, parse_post, parse_send
from claudemesh.protocol import events, frames, outcomes, replies
from claudemesh.protocol.canonical import (
    canonical_json,
    canonical_json_exactly,
    parse_json,
    parse_json_exactly,
)
from claudemesh.protocol.envelope import Envelope
from claudemesh.protocol.errors import InvalidField, ProtocolError, parse_close_reason
from claudemesh.protocol.features import OPTIONAL, REQUIRED, FeatureFailure, Features, negotiate
from claudemesh.protocol.invites import LINK_PREFIX, Invite, parse_link
from claudemesh.protocol.replies import BadReply
from claudemesh.protocol.sealing import SealedContext, decode_content, encode_content
from claudemesh.runtime.web.bodies import parse_object, parse_struct, to_struct
from claudemesh.runtime.web.paging import page_limit
from claudemesh.runtime.web.query import flag, moment, number_cursor, page_order, parse_query
from fuzzing import corpora

_LONG: Final = re.compile(rb"[0-9]{19}")
_ASKED: Final = ("deploy-42", "deploy-43")


class Broken(Exception):
    """A promise that an input breaks."""


@dataclass(frozen=True, slots=True)
class Target:
    """A function to fuzz, and what real spellers make for it."""

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]


def demand(holds: bool, promise: str) -> None:
    """`Broken` unless a promise holds."""
    if not holds:
        raise Broken(promise)


def frame(data: bytes) -> None:
    """Any text is a frame or invalid_frame; a frame survives the wire, and what is in it can be read on."""
    try:
        found = frames.decode_frame(data)
    except ProtocolError as error:
        demand(error.code == "invalid_frame" and bool(error.message), f"refused as {error}")
        frames.announced(data)
        return
    is_whole = True
    if isinstance(found, frames.Sends | frames.SendResults | frames.Delivers) and found.refused:
        demand(all(each.error.message for each in found.refused), "an item is refused without a reason")
        # Wrong items are not spelled again, and the others survive without them.
        found = replace(found, refused=())
        if not found.items:
            return
        is_whole = False
    try:
        text = frames.encode_frame(found)
    except orjson.JSONEncodeError:
        # Beyond 64 bits: only parts that are read on by field can hold it, and nothing spells those again.
        demand(_LONG.search(data) is not None, "a frame cannot be spelled")
        _read_on(found)
        return
    demand(frames.decode_frame(text) == found, "a frame does not survive the wire")
    demand(frames.encode_frame(frames.decode_frame(text)) == text, "a frame has two spellings")
    kind = "" if isinstance(found, frames.UnknownFrame) else found.TYPE
    demand(frames.announced(data if is_whole else text)[0] == kind, "a frame announces another type")
    _read_on(found)


def _read_on(found: frames.Frame) -> None:
    if isinstance(found, frames.FeatureResponse):
        agreed = negotiate(REQUIRED, OPTIONAL, found)
        demand(isinstance(agreed, Features | FeatureFailure), "a negotiation has no outcome")
    elif isinstance(found, frames.SendResult):
        outcome = outcomes.classify(found)
        demand(isinstance(outcome, outcomes.Done | outcomes.Dead | outcomes.Retry), "a result has no outcome")
    elif isinstance(found, frames.Event):
        with suppress(BadReply):
            events.parse_event(found)
    elif isinstance(found, frames.Sends | frames.SendResults | frames.Delivers):
        for item in found.items:
            _read_on(item)
    elif isinstance(found, frames.Send | frames.Deliver):
        with suppress(InvalidField):
            Envelope.parse(found.envelope)


def invite(data: bytes) -> None:
    """Any text is an invite or invalid_invite; no link that an inviter did not sign verifies."""
    text = data.decode("utf-8", "replace")
    if text.startswith("{"):
        text = LINK_PREFIX + urlsafe_b64encode(data).rstrip(b"=").decode()
    try:
        found = parse_link(text)
    except ProtocolError as error:
        demand(error.code == "invalid_invite" and bool(error.message), f"refused as {error}")
        return
    again = parse_link(found.to_link())
    demand(again == found, "an invite does not survive its link")
    demand(again.to_link() == found.to_link(), "an invite has two spellings")
    if found.verify():
        # The introduction has a signature of its own: a link can lose it.
        signed = [parse_link(link.decode()) for link in corpora.links()]
        known = any(_but(found) == _but(one) for one in signed)
        introduced = found.introduction is None or found.introduction in [one.introduction for one in signed]
        demand(known and introduced, "an invite verifies that nobody signed")


def _but(found: Invite) -> Invite:
    return replace(found, introduction=None)


def envelope(data: bytes) -> None:
    """Any text is an envelope or invalid_envelope; its signed part is the RFC 8785 form of what it signs."""
    try:
        found = Envelope.decode(data)
    except InvalidField as error:
        demand(error.code == "invalid_envelope" and bool(error.message), f"refused as {error}")
        return
    demand(Envelope.decode(found.encode()) == found, "an envelope does not survive the wire")
    rest = {name: value for name, value in found.to_dict().items() if name not in ("body", "signature")}
    demand(found.signed_part() == canonical_json_exactly(rest), "the signed part is not canonical")
    demand(len(found.expected_fingerprint()) == 32, "a fingerprint is not 32 bytes")


def content(data: bytes) -> None:
    """Check an opened box: it is a message or invalid_content, with a whole context or none."""
    try:
        found = decode_content(data)
    except ProtocolError as error:
        demand(error.code == "invalid_content" and bool(error.message), f"refused as {error}")
        return
    value = parse_json(data)
    parts = [name for name in ("mesh_id", "from", "to", "client_message_id") if name in value]
    demand(len(parts) == (0 if found.context is None else 4), "a part of a context is taken for one")
    context = found.context or SealedContext("mesh", "sender", "ref", "id")
    try:
        meta = orjson.dumps(found.meta) if found.meta else b""
    except orjson.JSONEncodeError:
        demand(_LONG.search(data) is not None, "a meta that was opened cannot be sealed again")
        return
    raw = encode_content(found.message, meta, context)
    demand(decode_content(raw) == found._replace(context=context), "a content does not survive the seal")


def body(data: bytes) -> None:
    """Bodies and queries of both HTTP APIs: parsed, or refused with a code; the fast parser is the exact one.

    The first byte chooses the route, the rest is what was sent to it.
    """
    route, raw = data[:1], data[1:]
    _agree(raw)
    read = ROUTES[route[0] % len(ROUTES)] if route else parse_object
    try:
        read(raw)
    except ProtocolError as error:
        demand(re.fullmatch(r"[a-z_0-9]+", error.code) is not None, f"the code {error.code!r} is no code")
        json.dumps(error.as_body()).encode()


def _agree(raw: bytes) -> None:
    fast, exact = _outcome(parse_json, raw), _outcome(parse_json_exactly, raw)
    demand(fast == exact, f"the fast parser says {fast[:80]}, the exact one {exact[:80]}")
    if fast.startswith("value"):
        value = parse_json(raw)
        fast, exact = _outcome(canonical_json, value), _outcome(canonical_json_exactly, value)
        demand(fast == exact, f"the fast speller says {fast[:80]}, the exact one {exact[:80]}")


def _outcome(call: Callable[[Any], object], given: Any) -> str:
    try:
        return f"value {call(given)!r}"
    except ProtocolError as error:
        return f"refused {error.code}"


def _send(raw: bytes) -> None:
    parse_send(parse_object(raw))
    _described(raw, schemas.SendBody)


def _post(raw: bytes) -> None:
    parse_post(parse_object(raw))
    _described(raw, schemas.PostBody)


def _described(raw: bytes, kind: type[msgspec.Struct]) -> None:
    """Demand that what the fast route takes is what openapi.json says."""
    try:
        parse_struct(raw, kind, required=True)
    except InvalidField as error:
        raise Broken(f"accepted, although openapi.json does not allow it: {error}") from error


def _changes(raw: bytes) -> None:
    parse_changes(parse_json(raw))


def _query(raw: bytes) -> None:
    several = (page_limit(), number_cursor(), page_order(), moment("since"), topic("topic"), member("from"))
    parse_query(raw, (*several, flag("unread")))


def _join(raw: bytes) -> None:
    found = parse_object(raw)
    found = given(to_struct(found, JoinBody))
    verified_invite(found)
    text_of(found.get("name"), "name", 64)
    signature_of(found.get("proof"), "proof")


ROUTES: Final[tuple[Callable[[bytes], None], ...]] = (
    _send,
    _post,
    _changes,
    _query,
    _join,
    *(
        lambda raw, kind=kind: parse_struct(raw, kind, required=True)
        for kind in (
            schemas_outbox.RequeueBody,
            schemas.AckBody,
            schemas.TopicBody,
            schemas.TopicCreateBody,
            schemas.ProfileBody,
            schemas.EmptyBody,
        )
    ),
)


def reply(data: bytes) -> None:
    """Every answer and event of a broker is read or is `BadReply`; reading it twice gives the same.

    The first byte chooses the reader, the rest is the JSON of the answer.
    """
    chosen, raw = data[:1], data[1:]
    parse_close_reason(raw.decode("utf-8", "replace"))
    try:
        value = parse_json(raw)
    except ProtocolError:
        return
    read = READERS[chosen[0] % len(READERS)] if chosen else replies.peers
    try:
        found = read(value)
    except BadReply as error:
        demand(bool(error.field and error.message), "a refusal names nothing")
        return
    demand(repr(read(parse_json(raw))) == repr(found), "a reply is read in two ways")
    if isinstance(found, replies.PeerList):
        demand(replies.version_number(found.version) >= 0, "a version has no number")
    if isinstance(found, replies.PeerList | replies.TopicList):
        count = len(found.items) + len(found.faults)
        demand(count == len(value["items"]), "an entry is neither right nor wrong")


def _event(name: str) -> Callable[[Any], object]:
    def read(data: Any) -> object:
        if not isinstance(data, dict):
            raise BadReply("data", "A frame's event has an object.")
        return events.parse_event(frames.Event(name, data))

    return read


READERS: Final[tuple[Callable[[Any], object], ...]] = (
    replies.peers,
    replies.topic_list,
    replies.topic_made,
    replies.send_status_of(_ASKED),
    *map(_event, ("member_added", "member_revoked", events.UNCONFIRMED, events.TOPIC_CREATED, "from_later")),
    *map(_event, (events.MEMBERS_CHANGED, events.PRESENCE, "peer_join", "peer_leave")),
)

TARGETS: Final[Mapping[str, Target]] = MappingProxyType(
    {
        "frames": Target(frame, corpora.frame_texts),
        "invites": Target(invite, corpora.invites),
        "envelopes": Target(envelope, corpora.envelopes),
        "contents": Target(content, corpora.contents),
        "bodies": Target(body, corpora.bodies),
        "replies": Target(reply, corpora.replies),
    }
)
