"""Encoding: frames to the text of a WebSocket message (docs/spec/protocol.md, WebSocket).

`encode_frame` writes any frame. The other functions write the frames of the hot path from parts that are
JSON already, so that an envelope is parsed and encoded once for all its recipients. They return what
`encode_frame` returns for the same frame, except for the order of the fields.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from claudemesh.protocol.fields import FrameId
from claudemesh.protocol.frames.types import DeliverySender, Event, Frame, SendResult


def encode_frame(frame: Frame) -> str:
    """Return the text of a frame."""
    return orjson.dumps(frame.to_dict()).decode()


def encode_send(request_id: str, envelope: bytes) -> bytes:
    """Return a `send` frame around a frozen envelope.

    `request_id` is a ULID and `envelope` the JSON text of one, so nothing in them needs escaping.
    """
    return b'{"type":"send","id":"%b","envelope":%b}' % (request_id.encode(), envelope)


def encode_send_result(request_id: FrameId, status: int, fields: Mapping[str, object]) -> str:
    """Return a `send_result` frame; `fields` are those that go with the status."""
    return orjson.dumps({"type": SendResult.TYPE, "id": request_id, "status": status, **fields}).decode()


def deliver_tail(
    *, broker_message_id: str, history_id: int, sender: DeliverySender, accepted_at: int, envelope: bytes
) -> str:
    """Return the part of a `deliver` frame that follows its delivery_id.

    All recipients of a message share it. `accepted_at` is Unix milliseconds. `envelope` is the JSON text that
    the store keeps.
    """
    tail = {
        "broker_message_id": broker_message_id,
        "history_id": history_id,
        "sender": {"member_id": sender.member_id, "name": sender.name, "pubkey": sender.pubkey},
        "accepted_at": accepted_at,
        "envelope": orjson.Fragment(envelope),
    }
    return orjson.dumps(tail)[1:].decode()


def encode_deliver(delivery_id: int, tail: str) -> str:
    """Return a `deliver` frame; `tail` is what `deliver_tail` returned for its message."""
    return f'{{"type":"deliver","delivery_id":{delivery_id},{tail}'


def encode_event(event: str, data: Mapping[str, object]) -> str:
    """Return an `event` frame; values of `data` may be `orjson.Fragment`."""
    return orjson.dumps({"type": Event.TYPE, "event": event, "data": data}).decode()
