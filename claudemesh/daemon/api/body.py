"""JSON bodies: strict JSON, an object, then exactly the fields of a msgspec Struct."""

from __future__ import annotations

import re
from typing import Any, Final, TypeVar

import msgspec

from claudemesh.protocol.canonical import parse_json
from claudemesh.protocol.errors import InvalidField, ProtocolError

S = TypeVar("S", bound=msgspec.Struct)

_WHERE: Final = re.compile(r"(.*?)(?: - at `\$\.?(.*)`)?", re.DOTALL)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(.*)`")


def parse_object(raw: bytes) -> dict[str, Any]:
    """Return the JSON object that a body holds. `ProtocolError` invalid_json, invalid_body…"""
    value = parse_json(raw)
    if not isinstance(value, dict):
        raise ProtocolError("invalid_body", "The body must be a JSON object.")
    return value


def parse_struct(raw: bytes, kind: type[S], *, required: bool) -> S:
    """Return the body as `kind`; a body that is not required may be empty. `InvalidField` names the field."""
    value = {} if not raw and not required else parse_object(raw)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _invalid(str(error), kind) from None


def _invalid(text: str, kind: type[msgspec.Struct]) -> InvalidField:
    match = _WHERE.fullmatch(text)
    reason, path = (match[1], match[2] or "") if match else (text, "")
    unknown = _UNKNOWN.fullmatch(reason)
    if unknown is not None:
        fields = ", ".join(kind.__struct_encode_fields__)
        allowed = f"the fields are {fields}" if fields else "there are none"
        return InvalidField("unknown_field", unknown[1][:64], f"There is no such field here; {allowed}.")
    missing = _MISSING.fullmatch(reason)
    if missing is not None:
        return InvalidField("missing_field", missing[1], f"Give {missing[1]}.")
    return InvalidField("invalid_field", path, f"Correct {path}: {reason[:1].lower()}{reason[1:]}.")
