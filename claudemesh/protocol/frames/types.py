"""Frames of the WebSocket as frozen values, one class for each type (docs/spec/protocol.md, WebSocket)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from claudemesh.protocol.base64 import to_base64
from claudemesh.protocol.fields import FrameId, Json


class _Fields:
    """What frames share: their fields, by their names, make their JSON object; one that is None stays out."""

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
    """The broker's first word. `server_time` is Unix milliseconds, the nonce 32 bytes."""

    TYPE: ClassVar[str] = "challenge"
    nonce: bytes
    server_time: int
    broker_version: str
    protocol: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Hello(_Fields):
    """Who connects, signed for this challenge and audience. No host fingerprint is an empty text."""

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
    """The broker knows the member. A new `epoch`: its database was restored or failed over.

    `server_time` is the broker's lived clock in milliseconds, which is close to Unix time and never set.
    """

    TYPE: ClassVar[str] = "hello_ack"
    member_id: str
    connection_id: str
    mesh: Mapping[str, Any]
    server_time: int
    epoch: str


@dataclass(frozen=True, slots=True)
class FeatureRequest(_Fields):
    """What the daemon cannot do without, and what it would use."""

    TYPE: ClassVar[str] = "feature_negotiation_request"
    require: tuple[str, ...]
    optional: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FeatureResponse(_Fields):
    """What the broker offers, as it said it: `features.negotiate` judges the parameters."""

    TYPE: ClassVar[str] = "feature_negotiation_response"
    supported: Mapping[str, Any]
    missing_required: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Send(_Fields):
    """One envelope to accept; it is parsed by the phase that judges it."""

    TYPE: ClassVar[str] = "send"
    id: FrameId
    envelope: Json

    def to_dict(self) -> Json:
        return {"type": self.TYPE, "id": self.id, "envelope": self.envelope}


@dataclass(frozen=True, slots=True)
class SendResult(_Fields):
    """The broker's word on a send: a status and the fields that go with it (`outcomes.classify`)."""

    TYPE: ClassVar[str] = "send_result"
    id: FrameId
    status: int
    fields: Mapping[str, Any]

    def to_dict(self) -> Json:
        return {**self.fields, "type": self.TYPE, "id": self.id, "status": self.status}


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sent a delivered message, in the broker's words: the signature decides."""

    member_id: str
    name: str
    pubkey: str


@dataclass(frozen=True, slots=True)
class Deliver(_Fields):
    """One message for this member, until it is acknowledged. `accepted_at` is Unix milliseconds."""

    TYPE: ClassVar[str] = "deliver"
    delivery_id: int
    broker_message_id: str
    history_id: int
    sender: Sender
    accepted_at: int
    envelope: Json

    def to_dict(self) -> Json:
        sender = self.sender
        return {
            "type": self.TYPE,
            "delivery_id": self.delivery_id,
            "broker_message_id": self.broker_message_id,
            "history_id": self.history_id,
            "sender": {"member_id": sender.member_id, "name": sender.name, "pubkey": sender.pubkey},
            "accepted_at": self.accepted_at,
            "envelope": self.envelope,
        }


@dataclass(frozen=True, slots=True)
class DeliverAck(_Fields):
    """These deliveries are durable in the inbox; at most 4096 in one frame."""

    TYPE: ClassVar[str] = "deliver_ack"
    delivery_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Call(_Fields):
    """A question to the broker, answered by a `Reply` with the same id."""

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
    """Something happened in the mesh."""

    TYPE: ClassVar[str] = "event"
    event: str
    data: Json


@dataclass(frozen=True, slots=True)
class ErrorFrame(_Fields):
    """Either side's complaint; with an `id`, about that request."""

    TYPE: ClassVar[str] = "error"
    code: str
    message: str
    id: FrameId | None = None


@dataclass(frozen=True, slots=True)
class UnknownFrame:
    """A frame of a type from another version: answered with `error`, otherwise ignored."""

    type: str
    id: FrameId | None = None

    def to_dict(self) -> Json:
        """Return what is known of the frame's JSON object."""
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
    | DeliverAck
    | Call
    | Reply
    | Event
    | ErrorFrame
    | UnknownFrame
)
