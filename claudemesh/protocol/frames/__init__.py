"""Frames of the WebSocket: values, decoding and encoding (docs/spec/protocol.md, WebSocket)."""

from __future__ import annotations

from claudemesh.protocol.frames.decode import (
    FRAME_TYPES,
    MAX_ACKED,
    MAX_MESSAGE_CHARACTERS,
    announced,
    decode_frame,
)
from claudemesh.protocol.frames.encode import (
    deliver_tail,
    encode_deliver,
    encode_event,
    encode_frame,
    encode_send,
    encode_send_result,
)
from claudemesh.protocol.frames.types import (
    Call,
    Challenge,
    Deliver,
    DeliverAck,
    DeliverySender,
    ErrorFrame,
    Event,
    FeatureRequest,
    FeatureResponse,
    Frame,
    Hello,
    HelloAck,
    Reply,
    Send,
    SendResult,
    UnknownFrame,
)

__all__ = [
    "FRAME_TYPES",
    "MAX_ACKED",
    "MAX_MESSAGE_CHARACTERS",
    "Call",
    "Challenge",
    "Deliver",
    "DeliverAck",
    "DeliverySender",
    "ErrorFrame",
    "Event",
    "FeatureRequest",
    "FeatureResponse",
    "Frame",
    "Hello",
    "HelloAck",
    "Reply",
    "Send",
    "SendResult",
    "UnknownFrame",
    "announced",
    "decode_frame",
    "deliver_tail",
    "encode_deliver",
    "encode_event",
    "encode_frame",
    "encode_send",
    "encode_send_result",
]
