"""One frozen value per WebSocket frame; text to frame and back (protocol.md, WebSocket)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Final, TypeAlias

import orjson

from claudemesh.protocol import fields
from claudemesh.protocol.base64 import to_base64
from claudemesh.protocol.canonical import parse_json
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.fields import INVALID_FRAME, NAME, FrameId, Json
from claudemesh.protocol.ids import HEX_32, KEY_ID, MEMBER_NAME, ULID, UUID_TEXT

NONCE_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
MAX_ACKED: Final = 4096
MAX_MESSAGE_CHARACTERS: Final = 4096

_PRINTABLE: Final = re.compile(r"[!-~]{1,255}")
_HOST_FINGERPRINT: Final = re.compile(r"(?:[0-9a-f]{64})?")


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


def encode_frame(frame: Frame) -> str:
    """Return a frame's text."""
    return orjson.dumps(frame.to_dict()).decode()


def decode_frame(raw: str | bytes) -> Frame:
    """Return the frame of a text. `ProtocolError` invalid_frame, and nothing else, whatever the text is."""
    try:
        value = parse_json(raw.encode() if isinstance(raw, str) else raw)
    except ProtocolError as error:
        raise ProtocolError(INVALID_FRAME, error.message, reason=error.code) from error
    except UnicodeEncodeError as error:
        raise ProtocolError(INVALID_FRAME, "It holds a lone surrogate.", reason="invalid_json") from error
    if not isinstance(value, dict):
        raise ProtocolError(INVALID_FRAME, "A frame must be one JSON object.")
    kind = value.get("type")
    if not isinstance(kind, str):
        fields.refuse("type", "name the frame's type")
    parse = _PARSERS.get(kind)
    if parse is None:
        if NAME.fullmatch(kind) is None:
            fields.refuse("type", "be a name of a-z 0-9 _, at most 64 characters")
        return UnknownFrame(kind, fields.optional_frame_id(value))
    return parse(value)


def _challenge(value: Json) -> Challenge:
    return Challenge(
        fields.binary(value, "nonce", NONCE_BYTES),
        fields.timestamp(value, "server_time"),
        fields.text(value, "broker_version"),
        fields.each(value, "protocol", fields.version),
    )


def _hello(value: Json) -> Hello:
    return Hello(
        mesh_id=fields.matching(value, "mesh_id", UUID_TEXT),
        pubkey=fields.matching(value, "pubkey", HEX_32),
        key_id=fields.matching(value, "key_id", KEY_ID),
        name=fields.matching(value, "name", MEMBER_NAME),
        host_fingerprint=fields.matching(value, "host_fingerprint", _HOST_FINGERPRINT),
        daemon_version=fields.text(value, "daemon_version"),
        instance_id=fields.text(value, "instance_id"),
        ephemeral=fields.boolean(value, "ephemeral"),
        audience=fields.matching(value, "audience", _PRINTABLE),
        signature=fields.binary(value, "signature", SIGNATURE_BYTES),
    )


def _hello_ack(value: Json) -> HelloAck:
    return HelloAck(
        fields.matching(value, "member_id", UUID_TEXT),
        fields.text(value, "connection_id"),
        fields.object_of(value, "mesh"),
        fields.timestamp(value, "server_time"),
        fields.text(value, "epoch"),
    )


def _feature_request(value: Json) -> FeatureRequest:
    return FeatureRequest(
        fields.each(value, "require", fields.feature_name),
        fields.each(value, "optional", fields.feature_name),
    )


def _feature_response(value: Json) -> FeatureResponse:
    return FeatureResponse(
        fields.offer(value, "supported"), fields.each(value, "missing_required", fields.feature_name)
    )


def _send(value: Json) -> Send:
    return Send(fields.frame_id(value), fields.object_of(value, "envelope"))


def _send_result(value: Json) -> SendResult:
    status = value.get("status")
    if type(status) is not int or not 100 <= status <= 599:
        fields.refuse("status", "be a status from 100 to 599")
    request_id = fields.frame_id(value)
    del value["type"], value["id"], value["status"]
    return SendResult(request_id, status, value)


def _deliver(value: Json) -> Deliver:
    sender = value.get("sender")
    if not isinstance(sender, dict):
        fields.refuse("sender", "be a JSON object")
    return Deliver(
        fields.integer(value, "delivery_id"),
        fields.matching(value, "broker_message_id", ULID),
        fields.integer(value, "history_id"),
        Sender(
            fields.matching(sender, "member_id", UUID_TEXT, "sender.member_id"),
            fields.matching(sender, "name", MEMBER_NAME, "sender.name"),
            fields.matching(sender, "pubkey", HEX_32, "sender.pubkey"),
        ),
        fields.timestamp(value, "accepted_at"),
        fields.object_of(value, "envelope"),
    )


def _deliver_ack(value: Json) -> DeliverAck:
    return DeliverAck(fields.integers(value, "delivery_ids", MAX_ACKED))


def _call(value: Json) -> Call:
    method = fields.matching(value, "method", NAME)
    return Call(fields.frame_id(value), method, fields.optional_object(value, "params"))


def _reply(value: Json) -> Reply:
    if ("ok" in value) == ("error" in value):
        fields.refuse("ok", "be there, or error, but not both")
    if "ok" in value:
        return Reply(fields.frame_id(value), ok=value["ok"])
    error = fields.object_of(value, "error")
    code = fields.matching(error, "code", NAME, "error.code")
    message = fields.text(error, "message", MAX_MESSAGE_CHARACTERS, "error.message")
    return Reply(fields.frame_id(value), error={"code": code, "message": message})


def _event(value: Json) -> Event:
    return Event(fields.matching(value, "event", NAME), fields.optional_object(value, "data"))


def _error(value: Json) -> ErrorFrame:
    return ErrorFrame(
        fields.matching(value, "code", NAME),
        fields.text(value, "message", MAX_MESSAGE_CHARACTERS),
        fields.optional_frame_id(value),
    )


_PARSERS: Final[Mapping[str, Callable[[Json], Frame]]] = MappingProxyType(
    {
        Challenge.TYPE: _challenge,
        Hello.TYPE: _hello,
        HelloAck.TYPE: _hello_ack,
        FeatureRequest.TYPE: _feature_request,
        FeatureResponse.TYPE: _feature_response,
        Send.TYPE: _send,
        SendResult.TYPE: _send_result,
        Deliver.TYPE: _deliver,
        DeliverAck.TYPE: _deliver_ack,
        Call.TYPE: _call,
        Reply.TYPE: _reply,
        Event.TYPE: _event,
        ErrorFrame.TYPE: _error,
    }
)
FRAME_TYPES: Final = frozenset(_PARSERS)
