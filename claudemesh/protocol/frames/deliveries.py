"""Deliveries of frozen envelopes, read without a JSON parser (docs/spec/protocol.md, WebSocket).

A broker writes a delivery with `encode_deliver` or `encode_delivers`, which have one order of the fields and
no white space, around the text that the sender has frozen. Any other text is left to `decode_frame`.
"""

from __future__ import annotations

import re
from typing import Final

from claudemesh.protocol.frames.types import Deliver, Delivers, DeliverySender
from claudemesh.protocol.frozen import match_frozen
from claudemesh.protocol.wire import BATCH_ITEMS

# Shorter than the bounds of the fields, which `decode_frame` checks.
_NUMBER: Final = r"(0|[1-9][0-9]{0,17})"
_TIME: Final = r"(0|[1-9][0-9]{0,13})"
_ITEM: Final = re.compile(
    r'"delivery_id":' + _NUMBER + r',"broker_message_id":"([0-7][0-9A-HJKMNP-TV-Z]{25})"'
    r',"history_id":' + _NUMBER + r',"sender":\{"member_id":"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"'
    r',"name":"([A-Za-z0-9][A-Za-z0-9._-]{0,62})","pubkey":"([0-9a-f]{64})"\}'
    r',"accepted_at":' + _TIME + r',"envelope":'
)
_ONE: Final = '{"type":"deliver",'
_MANY: Final = '{"type":"delivers","items":[{'


def deliveries_of(text: str) -> Deliver | Delivers | None:
    """Return the frame of a text with frozen envelopes in the layout of the encoders; None for any other.

    It is what `decode_frame` returns, with each envelope parsed. None also for each text that it refuses.
    """
    if not text.isascii():
        return None
    if text.startswith(_ONE):
        found = _match(text, len(_ONE))
        return None if found is None or found[1] != len(text) else found[0]
    if not (text.startswith(_MANY) and text.endswith("]}")):
        return None
    items, at, last = list[Deliver](), len(_MANY), len(text) - len("]}")
    while len(items) < BATCH_ITEMS:
        found = _match(text, at)
        if found is None:
            return None
        items.append(found[0])
        if found[1] == last:
            return Delivers(tuple(items))
        if not text.startswith(",{", found[1]):
            return None
        at = found[1] + len(",{")
    return None


def _match(text: str, at: int) -> tuple[Deliver, int] | None:
    """Return the delivery whose first field begins at a place, and the place behind its closing brace."""
    head = _ITEM.match(text, at)
    found = None if head is None else match_frozen(text, head.end())
    if head is None or found is None or not text.startswith("}", found[1]):
        return None
    delivery_id, message_id, history_id, member_id, name, pubkey, accepted_at = head.groups()
    sender = DeliverySender(member_id, name, pubkey)
    delivery = Deliver(
        int(delivery_id), message_id, int(history_id), sender, int(accepted_at), envelope=found[0]
    )
    return delivery, found[1] + 1
