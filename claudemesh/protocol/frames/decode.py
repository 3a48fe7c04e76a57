"""Decoding: the text of a WebSocket message to a frame, fields checked (docs/spec/protocol.md, WebSocket)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from claudemesh.protocol import fields
from claudemesh.protocol.canonical import parse_json
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.fields import INVALID_FRAME, NAME, FrameId, Json
from claudemesh.protocol.frames.batches import each_of, sends_of
from claudemesh.protocol.frames.types import (
    Call,
    Challenge,
    Deliver,
    DeliverAck,
    Delivers,
    DeliverySender,
    ErrorFrame,
    Event,
    FeatureRequest,
    FeatureResponse,
    Frame,
    Hello,
    HelloAck,
    Reply,
    Revoked,
    Send,
    SendResult,
    SendResults,
    Sends,
    UnknownFrame,
)
from claudemesh.protocol.ids import HEX_32, KEY_ID, MEMBER_NAME, ULID, UUID_TEXT
from claudemesh.protocol.keys import SIGNATURE_BYTES
from claudemesh.protocol.wire import CHALLENGE_NONCE_BYTES

# Upper bounds of one `deliver_ack` and of the message of an error.
MAX_ACKED: Final = 4096
MAX_MESSAGE_CHARACTERS: Final = 4096

_PRINTABLE: Final = re.compile(r"[!-~]{1,255}")
_HOST_FINGERPRINT: Final = re.compile(r"(?:[0-9a-f]{64})?")


def decode_frame(raw: str | bytes) -> Frame:
    """Return the frame of a text. `ProtocolError` invalid_frame for every other text."""
    sends = sends_of(raw)
    if sends is not None:
        return sends
    try:
        value = parse_json(raw.encode() if isinstance(raw, str) else raw)
    except ProtocolError as error:
        raise ProtocolError(INVALID_FRAME, error.message, reason=error.code) from error
    except UnicodeEncodeError as error:
        raise ProtocolError(
            INVALID_FRAME, "The frame holds a lone surrogate. Send valid UTF-8.", reason="invalid_json"
        ) from error
    if not isinstance(value, dict):
        raise ProtocolError(INVALID_FRAME, "The frame is not a JSON object. Send one object in each message.")
    kind = value.get("type")
    if not isinstance(kind, str):
        fields.refuse("type", "name the frame's type")
    parse = _PARSERS.get(kind)
    if parse is None:
        if NAME.fullmatch(kind) is None:
            fields.refuse("type", "be a name of a-z 0-9 _, at most 64 characters")
        return UnknownFrame(kind, fields.optional_frame_id(value))
    return parse(value)


def announced(raw: str | bytes) -> tuple[str, FrameId | None]:
    """Return the type and the id of a text that `decode_frame` refuses; "" and None where it has none."""
    try:
        value = parse_json(raw.encode() if isinstance(raw, str) else raw)
        kind = value.get("type") if isinstance(value, dict) else None
        if not isinstance(kind, str) or kind not in FRAME_TYPES:
            return "", None
    except (ProtocolError, UnicodeEncodeError):
        return "", None
    try:
        return kind, fields.optional_frame_id(value)
    except ProtocolError:
        return kind, None


def _challenge(value: Json) -> Challenge:
    return Challenge(
        fields.binary(value, "nonce", CHALLENGE_NONCE_BYTES),
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
    value.pop("type", None)
    del value["id"], value["status"]
    return SendResult(request_id, status, value)


def parse_deliver(value: Json) -> Deliver:
    """Return the delivery that a JSON object holds. `InvalidField` names a wrong field."""
    sender = value.get("sender")
    if not isinstance(sender, dict):
        fields.refuse("sender", "be a JSON object")
    return Deliver(
        fields.integer(value, "delivery_id"),
        fields.matching(value, "broker_message_id", ULID),
        fields.integer(value, "history_id"),
        DeliverySender(
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


def _revoked(value: Json) -> Revoked:
    return Revoked(fields.object_of(value, "statement"))


_PARSERS: Final[Mapping[str, Callable[[Json], Frame]]] = MappingProxyType(
    {
        Challenge.TYPE: _challenge,
        Hello.TYPE: _hello,
        HelloAck.TYPE: _hello_ack,
        FeatureRequest.TYPE: _feature_request,
        FeatureResponse.TYPE: _feature_response,
        Send.TYPE: _send,
        SendResult.TYPE: _send_result,
        Deliver.TYPE: parse_deliver,
        Sends.TYPE: lambda value: Sends(*each_of(value, _send)),
        SendResults.TYPE: lambda value: SendResults(*each_of(value, _send_result)),
        Delivers.TYPE: lambda value: Delivers(*each_of(value, parse_deliver)),
        DeliverAck.TYPE: _deliver_ack,
        Call.TYPE: _call,
        Reply.TYPE: _reply,
        Event.TYPE: _event,
        ErrorFrame.TYPE: _error,
        Revoked.TYPE: _revoked,
    }
)
FRAME_TYPES: Final = frozenset(_PARSERS)
