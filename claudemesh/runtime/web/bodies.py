"""Request bodies: read within a limit of size and time, then parsed as strict JSON into a msgspec Struct."""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final, TypeVar

import msgspec

from claudemesh.protocol.canonical import parse_json
from claudemesh.protocol.errors import InvalidField, ProtocolError
from claudemesh.runtime.web.asgi import Receive, is_whole
from claudemesh.runtime.web.errors import HttpRefusal
from claudemesh.runtime.web.field_errors import wrong_field
from claudemesh.runtime.web.replies import CLOSE

S = TypeVar("S", bound=msgspec.Struct)

# Unread bytes of a refused body that the server reads and discards, so that the client sees the reply.
_DISCARDED: Final = 8 << 20
_SHOWN_CHARACTERS: Final = 64

_WHERE: Final = re.compile(r"(.*?)(?: - at `\$\.?(.*)`)?", re.DOTALL)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(.*)`")


class ClientGone(Exception):
    """The client disconnected before its body was complete."""


async def read_body(receive: Receive, limit: int, deadline_s: float) -> bytes:
    """Read a request's whole body.

    `HttpRefusal` 413 as soon as it is larger than `limit` bytes, 408 after `deadline_s` seconds;
    `ClientGone`.
    """
    if is_whole(receive):
        # Nothing is waited for, so no timer is set.
        return await _read(receive, limit)
    try:
        async with asyncio.timeout(deadline_s):
            return await _read(receive, limit)
    except TimeoutError:
        text = f"Send the whole body within {deadline_s:.0f} s."
        raise HttpRefusal(408, "request_timeout", text, headers=CLOSE) from None


async def _read(receive: Receive, limit: int) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False) and message["type"] == "http.request":
        if len(body) > limit:
            raise too_large(limit, None)
        return body
    parts = [body]
    size = len(body)
    while message.get("more_body", False) or message["type"] != "http.request":
        if message["type"] == "http.disconnect":
            raise ClientGone
        if size > limit:
            raise too_large(limit, None)
        message = await receive()
        part: bytes = message.get("body", b"")
        size += len(part)
        parts.append(part)
    if size > limit:
        raise too_large(limit, None)
    return b"".join(parts)


def too_large(limit: int, length: int | None) -> HttpRefusal:
    """Return the 413 of a body of `length` bytes. An unknown or very large one closes the connection too."""
    ends = length is None or length > _DISCARDED
    text = f"A body may have at most {limit} bytes: send less."
    return HttpRefusal(413, "payload_too_large", text, headers=CLOSE if ends else (), limit=limit)


def parse_object(raw: bytes) -> dict[str, Any]:
    """Return the JSON object in a body. `ProtocolError` invalid_json or invalid_body."""
    value = parse_json(raw)
    if not isinstance(value, dict):
        raise ProtocolError("invalid_body", "The body must be a JSON object.")
    return value


def parse_struct(raw: bytes, kind: type[S], *, required: bool) -> S:
    """Return a body as `kind`; an empty body is `{}` unless `required`. `InvalidField` names the field."""
    value = {} if not raw and not required else parse_object(raw)
    return to_struct(value, kind)


def to_struct(value: dict[str, Any], kind: type[S]) -> S:
    """Return a JSON object as `kind`. `InvalidField` names the field that is unknown, missing or wrong."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _invalid(str(error), kind) from None


def printable(text: str) -> str:
    """Return a caller's text for an error message: at most 64 characters, with `?` for unprintable ones."""
    return "".join(char if char.isprintable() else "?" for char in text[:_SHOWN_CHARACTERS])


def _invalid(text: str, kind: type[msgspec.Struct]) -> InvalidField:
    match = _WHERE.fullmatch(text)
    reason, path = (match[1], match[2] or "") if match else (text, "")
    unknown = _UNKNOWN.fullmatch(reason)
    if unknown is not None:
        fields = ", ".join(kind.__struct_encode_fields__)
        allowed = f"The fields are {fields}." if fields else "There are none."
        return InvalidField("unknown_field", printable(unknown[1]), f"There is no such field here. {allowed}")
    missing = _MISSING.fullmatch(reason)
    if missing is not None:
        return InvalidField("missing_field", missing[1], f"Give {missing[1]}.")
    return InvalidField("invalid_field", path, wrong_field(path, reason))
