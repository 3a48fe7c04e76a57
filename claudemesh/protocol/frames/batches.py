"""Frames with several items (docs/spec/protocol.md, Frames with several items).

An item is judged by itself: a wrong one is refused, and the others count. The envelopes of `sends` are cut
out of the text and parsed one by one: one that is not strict JSON is refused alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec
import orjson

from claudemesh.protocol import fields
from claudemesh.protocol.canonical import parse_json
from claudemesh.protocol.errors import InvalidField, ProtocolError
from claudemesh.protocol.fields import FrameId, Json
from claudemesh.protocol.frames.types import Delivers, Refusal, Send, SendResults, Sends
from claudemesh.protocol.wire import BATCH_BYTES, BATCH_ITEMS

T = TypeVar("T")

_ENVELOPE = "invalid_envelope"


class _RawSend(msgspec.Struct, gc=False):
    id: msgspec.Raw
    envelope: msgspec.Raw


class _RawSends(msgspec.Struct, gc=False):
    type: str
    items: list[_RawSend]


_DECODE: Final = msgspec.json.Decoder(_RawSends).decode
# The layout of `encode_sends`: the bytes around the ids and the envelopes.
_HEAD: Final = b'{"type":"sends","items":['
_TEXT_HEAD: Final = _HEAD.decode()
_ITEM_BYTES: Final = len(b'{"id":,"envelope":},')
_FRAME_BYTES: Final = len(_HEAD) + len(b"]}") - len(b",")


def each_of(value: Json, parse: Callable[[Json], T]) -> tuple[tuple[T, ...], tuple[Refusal, ...]]:
    """Return the items of a frame, each read by `parse`, and those that it refuses."""
    found = value.get("items")
    if not isinstance(found, list) or not 0 < len(found) <= BATCH_ITEMS:
        fields.refuse("items", f"be a list of 1 to {BATCH_ITEMS}")
    items, refused = list[T](), list[Refusal]()
    for index, item in enumerate(found):
        try:
            if not isinstance(item, dict):
                fields.refuse(f"items[{index}]", "be a JSON object")
            items.append(parse(item))
        except InvalidField as error:
            refused.append(_refusal(item, error))
    return tuple(items), tuple(refused)


def sends_of(raw: str | bytes, *, unparsed: bool = False) -> Sends | None:
    """Return the frame of a text with the layout of `encode_sends`, None for any other text.

    `unparsed`: the envelopes stay texts.
    """
    if not raw.startswith(_TEXT_HEAD if isinstance(raw, str) else _HEAD):  # type: ignore[arg-type]
        return None
    try:
        text = raw.encode() if isinstance(raw, str) else raw
        found = [(bytes(item.id), bytes(item.envelope)) for item in _DECODE(text).items]
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return None
    size = sum([len(request_id) + len(envelope) for request_id, envelope in found])
    # A text of another length has further fields or white space, and one of these may stand twice.
    if len(text) != size + len(found) * _ITEM_BYTES + _FRAME_BYTES or not 0 < len(found) <= BATCH_ITEMS:
        return None
    items, refused = list[Send](), list[Refusal]()
    for request_id, envelope in found:
        try:
            items.append(Send(_id_of(request_id), envelope if unparsed else envelope_of(envelope)))
        except ProtocolError as error:
            refused.append(_refusal({"id": _loose(request_id)}, error))
    return Sends(tuple(items), tuple(refused))


def encode_sends(items: Iterable[tuple[str, bytes]]) -> bytes:
    """Return a `sends` frame around frozen envelopes, each with the ULID of its request."""
    return b"%b%b]}" % (
        _HEAD,
        b",".join([b'{"id":"%b","envelope":%b}' % (name.encode(), envelope) for name, envelope in items]),
    )


def encode_send_results(results: Sequence[tuple[FrameId, int, Mapping[str, object]]]) -> str:
    """Return a `send_results` frame; each result is an id, a status, and the fields that go with it."""
    items = [{"id": name, "status": status, **more} for name, status, more in results]
    return orjson.dumps({"type": SendResults.TYPE, "items": items}).decode()


def encode_delivers(items: Iterable[tuple[int, str]]) -> str:
    """Return a `delivers` frame of delivery ids and what `deliver_tail` returned for their messages."""
    delivers = ",".join([f'{{"delivery_id":{delivery_id},{tail}' for delivery_id, tail in items])
    return f'{{"type":"{Delivers.TYPE}","items":[{delivers}]}}'


def batches_of(items: Iterable[T], size_of: Callable[[T], int], most: int = BATCH_ITEMS) -> Iterator[list[T]]:
    """Cut items into the frames in which they leave: at most `most` items, and bytes up to the bound.

    An item that is larger than the bound has a frame of its own.
    """
    batch, size = list[T](), 0
    for item in items:
        weight = size_of(item)
        if batch and (len(batch) >= most or size + weight > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += weight
    if batch:
        yield batch


def _id_of(raw: bytes) -> FrameId:
    return fields.frame_id({"id": _loose(raw)})


def _loose(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None


def envelope_of(raw: bytes) -> Json:
    """Return the JSON object of an envelope. `InvalidField` invalid_envelope: it is none, or not strict."""
    try:
        return fields.object_of({"envelope": parse_json(raw)}, "envelope")
    except ProtocolError as error:
        raise InvalidField(_ENVELOPE, "envelope", error.message) from error


def _refusal(item: object, error: ProtocolError) -> Refusal:
    try:
        request_id = fields.optional_frame_id(item) if isinstance(item, dict) else None
    except InvalidField:
        return Refusal(None, error)
    if request_id is not None and error.fields.get("field") == "envelope":
        error = InvalidField(_ENVELOPE, "envelope", error.message)
    return Refusal(request_id, error)
