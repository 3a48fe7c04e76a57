"""Request fingerprints: equal for equal sends only (docs/spec/protocol.md, Request fingerprint)."""

from __future__ import annotations

from hashlib import sha256

from claudemesh.protocol.canonical import canonical_meta
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.wire import ENVELOPE_VERSION

FINGERPRINT_BYTES = 32

_PREFIX_BYTES = 8
_SEPARATORS = 6


def fingerprint_preimage(
    *,
    kind: str,
    ref: str,
    reply_to_id: str | None,
    priority: str,
    meta: object,
    body: bytes,
    version: int = ENVELOPE_VERSION,
) -> bytes:
    """Return the bytes that are hashed. `ProtocolError`: meta_not_canonical, invalid_meta, invalid_field."""
    text = f"{version}\0{kind}\0{ref}\0{reply_to_id or ''}\0{priority}\0"
    try:
        head = text.encode()
    except UnicodeEncodeError as error:
        raise _ambiguous() from error
    # The meta escapes zero bytes and the hash has none, so only the head could forge a boundary.
    if head.count(0) != _SEPARATORS - 1:
        raise _ambiguous()
    return b"%b%b\0%b" % (head, canonical_meta(meta), sha256(body).hexdigest().encode())


def request_fingerprint(
    *,
    kind: str,
    ref: str,
    reply_to_id: str | None,
    priority: str,
    meta: object,
    body: bytes,
    version: int = ENVELOPE_VERSION,
) -> bytes:
    """Return the 32 bytes of the fingerprint. Errors: see `fingerprint_preimage`."""
    preimage = fingerprint_preimage(
        kind=kind,
        ref=ref,
        reply_to_id=reply_to_id,
        priority=priority,
        meta=meta,
        body=body,
        version=version,
    )
    return sha256(preimage).digest()


def fingerprint_prefix(fingerprint: bytes) -> str:
    """Return the first 8 bytes in hexadecimal, which people and `409` answers are shown."""
    return fingerprint[:_PREFIX_BYTES].hex()


def _ambiguous() -> ProtocolError:
    return ProtocolError(
        "invalid_field",
        "A field other than the body holds a control character or has no UTF-8 form. Remove that character.",
    )
