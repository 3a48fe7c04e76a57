"""Frozen envelopes: JSON texts as daemons write them, parsed without a JSON parser.

A daemon freezes an envelope with `Envelope.encode`, which has one order of the fields and no white space. A
text in that form is matched in three parts: the fields before the body, the body, and the fields behind it.
Any other text is left to the parser of JSON, which also finds what is wrong with it.
"""

from __future__ import annotations

import re
from typing import Final, cast

from claudemesh.protocol.base64 import from_base64
from claudemesh.protocol.envelope import MAX_BODY_BYTES, MAX_KEY_EPOCH, Envelope, Seal, SealAlg
from claudemesh.protocol.wire import DestinationKind, Priority

_ULID: Final = r"[0-7][0-9A-HJKMNP-TV-Z]{25}"
_HEAD: Final = re.compile(
    r'\{"v":1,"client_message_id":"([!#-\[\]-~]{1,255})","destination_kind":'
    r'(?:"dm","destination_ref":"([0-9a-f]{64})"|"(topic|queue)","destination_ref":"([a-z0-9][a-z0-9._-]{0,62})")'
    r',"reply_to_id":(?:null|"(' + _ULID + r')"),"priority":"(now|next|low)","mentions":\[\],"body":"'
)
_TAIL: Final = re.compile(
    r'","seal":\{"alg":"(box|secretbox)","sender_key_id":"(k_' + _ULID + r')","nonce":"([0-9A-Za-z+/]{32})",'
    r'(?:"recipient_key_id":"(k_' + _ULID + r')"|"epoch":([1-9][0-9]{0,9}))\}'
    r',"request_fingerprint":"([0-9a-f]{64})","signature":"([0-9A-Za-z+/]{86}==)"\}'
)
# At least the MAC of a seal, in base64.
_LEAST_BODY: Final = 24


def parse_frozen(raw: bytes) -> Envelope | None:
    """Return the envelope of a text that `Envelope.encode` has returned for a sealed one; None for others.

    It is what `Envelope.decode` returns. None also for an envelope with mentions, and for each that
    `Envelope.decode` refuses.
    """
    try:
        text = raw.decode("ascii")
    except UnicodeDecodeError:
        return None
    found = match_frozen(text, 0)
    return None if found is None or found[1] != len(text) else found[0]


def match_frozen(text: str, at: int) -> tuple[Envelope, int] | None:
    """Return the frozen envelope that begins at a place of an ASCII text, and the place behind it.

    None where `parse_frozen` returns None.
    """
    head = _HEAD.match(text, at)
    if head is None:
        return None
    begin = head.end()
    end = text.find('"', begin)
    tail = _TAIL.match(text, end) if end - begin >= _LEAST_BODY else None
    if tail is None:
        return None
    client_message_id, key, kind, name, reply_to_id, priority = head.groups()
    alg, sender_key_id, nonce, recipient_key_id, key_epoch, fingerprint, signature = tail.groups()
    # A box is for a member, and the key of a topic for its subscribers.
    if (alg == "box") != (key is not None) or (alg == "box") != (recipient_key_id is not None):
        return None
    if key_epoch is not None and int(key_epoch) > MAX_KEY_EPOCH:
        return None
    body, signed = from_base64(text[begin:end]), from_base64(signature)
    if body is None or signed is None or len(body) > MAX_BODY_BYTES:
        return None
    epoch = None if key_epoch is None else int(key_epoch)
    envelope = Envelope(
        client_message_id,
        cast("DestinationKind", "dm" if key is not None else kind),
        name if key is None else key,
        reply_to_id,
        cast("Priority", priority),
        (),
        body,
        Seal(cast("SealAlg", alg), from_base64(nonce) or b"", sender_key_id, recipient_key_id, epoch),
        bytes.fromhex(fingerprint),
        signed,
    )
    return envelope, tail.end()
