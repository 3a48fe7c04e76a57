"""Frames of the WebSocket as frozen values, one class for each type (docs/spec/protocol.md, WebSocket)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeAlias

import orjson

from claudemesh.protocol.base64 import to_base64
from claudemesh.protocol.envelope import Envelope
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.fields import FrameId, Json
from claudemesh.protocol.wire import Side


class _Fields:
    """Base of the frames: the JSON object has the fields under their names, without those that are None."""

    __slots__: tuple[str, ...] = ()
    TYPE: ClassVar[str]

    def to_dict(self) -> Json:
        """Return the frame's JSON object."""
        frame: Json = {"type": self.TYPE}
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None:
                frame[name] = to_base64(value) if isinstance(value, bytes) else value
        return frame


@dataclass(frozen=True, slots=True)
class Challenge(_Fields):
    """The first frame of a broker. `server_time` is its wall clock in Unix milliseconds."""

    TYPE: ClassVar[str] = "challenge"
    nonce: bytes
    server_time: int
    broker_version: str
    protocol: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Hello(_Fields):
    """The identity of a daemon, signed for one challenge and audience. `host_fingerprint` may be empty."""

    TYPE: ClassVar[str] = "hello"
    mesh_id: str
    pubkey: str
    key_id: str
    name: str
    host_fingerprint: str
    daemon_version: str
    instance_id: str
    ephemeral: bool
    audience: str
    signature: bytes


@dataclass(frozen=True, slots=True)
class HelloAck(_Fields):
    """The admission of a member.

    `store_epoch` changes when the broker's database was restored or failed over. `server_time` is the lived
    clock of the broker in milliseconds, which is close to Unix time and never set.
    """

    TYPE: ClassVar[str] = "hello_ack"
    member_id: str
    connection_id: str
    mesh: Mapping[str, Any]
    server_time: int
    store_epoch: str

    def to_dict(self) -> Json:
        frame = _Fields.to_dict(self)
        frame["epoch"] = frame.pop("store_epoch")
        return frame


@dataclass(frozen=True, slots=True)
class FeatureRequest(_Fields):
    """The features that the daemon requires, and those that it can use."""

    TYPE: ClassVar[str] = "feature_negotiation_request"
    require: tuple[str, ...]
    optional: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FeatureResponse(_Fields):
    """The offer of the broker, not judged yet: see `features.negotiate`."""

    TYPE: ClassVar[str] = "feature_negotiation_response"
    supported: Mapping[str, Any]
    missing_required: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Send(_Fields):
    """An envelope to accept. Its fields are not checked yet; bytes are a JSON text that is not parsed yet."""

    TYPE: ClassVar[str] = "send"
    id: FrameId
    envelope: Json | bytes

    def to_dict(self) -> Json:
        envelope = self.envelope
        if isinstance(envelope, bytes):
            return {"type": self.TYPE, "id": self.id, "envelope": orjson.loads(envelope)}
        return {"type": self.TYPE, "id": self.id, "envelope": envelope}


@dataclass(frozen=True, slots=True)
class SendResult(_Fields):
    """The answer to a send: a status and the fields that go with it, see `outcomes.classify`."""

    TYPE: ClassVar[str] = "send_result"
    id: FrameId
    status: int
    fields: Mapping[str, Any]

    def to_dict(self) -> Json:
        return {**self.fields, "type": self.TYPE, "id": self.id, "status": self.status}


@dataclass(frozen=True, slots=True)
class DeliverySender:
    """The sender of a delivered message as the broker names it. The signature of the envelope proves it."""

    member_id: str
    name: str
    pubkey: str


@dataclass(frozen=True, slots=True)
class Deliver(_Fields):
    """A message for this member, which acknowledges it. `accepted_at` is Unix milliseconds.

    The fields of an envelope that is not parsed yet are not checked.
    """

    TYPE: ClassVar[str] = "deliver"
    delivery_id: int
    broker_message_id: str
    history_id: int
    sender: DeliverySender
    accepted_at: int
    envelope: Json | Envelope

    def to_dict(self) -> Json:
        sender, envelope = self.sender, self.envelope
        return {
            "type": self.TYPE,
            "delivery_id": self.delivery_id,
            "broker_message_id": self.broker_message_id,
            "history_id": self.history_id,
            "sender": {"member_id": sender.member_id, "name": sender.name, "pubkey": sender.pubkey},
            "accepted_at": self.accepted_at,
            "envelope": envelope.to_dict() if isinstance(envelope, Envelope) else envelope,
        }


class Refusal(NamedTuple):
    """An item that is wrong: its error, and its id if it has a valid one. The other items count."""

    id: FrameId | None
    error: ProtocolError


@dataclass(frozen=True, slots=True)
class Sends(_Fields):
    """Several sends in one frame. `refused` has the items that are no valid send."""

    TYPE: ClassVar[str] = "sends"
    items: tuple[Send, ...]
    refused: tuple[Refusal, ...] = ()

    def to_dict(self) -> Json:
        return _batch(self.TYPE, self.items)


@dataclass(frozen=True, slots=True)
class SendResults(_Fields):
    """Several results in one frame. `refused` has the items that are no valid result."""

    TYPE: ClassVar[str] = "send_results"
    items: tuple[SendResult, ...]
    refused: tuple[Refusal, ...] = ()

    def to_dict(self) -> Json:
        return _batch(self.TYPE, self.items)


@dataclass(frozen=True, slots=True)
class Delivers(_Fields):
    """Several deliveries in one frame. `refused` has the items that are no valid delivery."""

    TYPE: ClassVar[str] = "delivers"
    items: tuple[Deliver, ...]
    refused: tuple[Refusal, ...] = ()

    def to_dict(self) -> Json:
        return _batch(self.TYPE, self.items)


def _batch(kind: str, items: tuple[Send | SendResult | Deliver, ...]) -> Json:
    """Return the JSON object of a frame with several items, each without its type."""
    fields = [item.to_dict() for item in items]
    for each in fields:
        del each["type"]
    return {"type": kind, "items": fields}


@dataclass(frozen=True, slots=True)
class DeliverAck(_Fields):
    """The acknowledgement of at most 4096 deliveries, which are durable in the inbox."""

    TYPE: ClassVar[str] = "deliver_ack"
    delivery_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Call(_Fields):
    """A request to the broker, answered by a `Reply` with the same id."""

    TYPE: ClassVar[str] = "call"
    id: FrameId
    method: str
    params: Json


@dataclass(frozen=True, slots=True)
class Reply(_Fields):
    """The answer to a call: `ok`, or an error with code and message."""

    TYPE: ClassVar[str] = "reply"
    id: FrameId
    ok: Any = None
    error: Mapping[str, str] | None = None

    def to_dict(self) -> Json:
        if self.error is not None:
            return {"type": self.TYPE, "id": self.id, "error": self.error}
        return {"type": self.TYPE, "id": self.id, "ok": self.ok}


@dataclass(frozen=True, slots=True)
class Event(_Fields):
    """A notification; see `events.parse_event`."""

    TYPE: ClassVar[str] = "event"
    event: str
    data: Json


@dataclass(frozen=True, slots=True)
class ErrorFrame(_Fields):
    """A complaint of either side, about the request `id` if there is one."""

    TYPE: ClassVar[str] = "error"
    code: str
    message: str
    id: FrameId | None = None


@dataclass(frozen=True, slots=True)
class Revoked(_Fields):
    """The statement by which a member was revoked, before the broker closes its connection with 4002."""

    TYPE: ClassVar[str] = "revoked"
    statement: Json


@dataclass(frozen=True, slots=True)
class UnknownFrame:
    """A frame of an unknown type. It is answered with `error` and otherwise ignored."""

    type: str
    id: FrameId | None = None

    def refusal(self, side: Side) -> ErrorFrame:
        """Return the answer of a side to this frame."""
        text = f"This {side} does not know frames of type {self.type}. Upgrade it to use them."
        return ErrorFrame("unknown_type", text, self.id)

    def to_dict(self) -> Json:
        """Return the known fields of the JSON object."""
        return {"type": self.type} if self.id is None else {"type": self.type, "id": self.id}


Frame: TypeAlias = (
    Challenge
    | Hello
    | HelloAck
    | FeatureRequest
    | FeatureResponse
    | Send
    | SendResult
    | Deliver
    | Sends
    | SendResults
    | Delivers
    | DeliverAck
    | Call
    | Reply
    | Event
    | ErrorFrame
    | Revoked
    | UnknownFrame
)
