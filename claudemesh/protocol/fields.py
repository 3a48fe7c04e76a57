"""Readers of the fields of a JSON object, one for each form. `InvalidField` invalid_frame: a wrong field."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn, TypeAlias, TypeVar, cast

from claudemesh.protocol.base64 import from_base64
from claudemesh.protocol.errors import InvalidField
from claudemesh.protocol.ids import HEX_32, UUID_TEXT, has_control

FrameId: TypeAlias = int | str
Json: TypeAlias = dict[str, Any]

MAX_TEXT_CHARACTERS: Final = 64
MAX_LIST: Final = 64
MAX_INTEGER: Final = 2**63 - 1
# The last millisecond of the year 9999. Later times have no ISO 8601 form with a year of four digits.
MAX_TIME_MS: Final = 253_402_300_799_999

INVALID_FRAME: Final = "invalid_frame"
NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_T = TypeVar("_T")
_S = TypeVar("_S", bound=str)


def frame_id(value: Json) -> FrameId:
    """Return the id that a request and its answer share."""
    found = value.get("id")
    if type(found) is int:
        usable = 0 <= found <= MAX_INTEGER
    else:
        usable = isinstance(found, str) and 0 < len(found) <= MAX_TEXT_CHARACTERS and not has_control(found)
    if not usable:
        refuse("id", f"be a whole number, or a text of 1 to {MAX_TEXT_CHARACTERS} characters")
    return cast("FrameId", found)


def optional_frame_id(value: Json) -> FrameId | None:
    """Return the id of a frame, None when it has none."""
    return None if value.get("id") is None else frame_id(value)


def integer(value: Json, name: str) -> int:
    """Return a whole number from 0 to 2^63-1."""
    found = value.get(name)
    if type(found) is not int or not 0 <= found <= MAX_INTEGER:
        refuse(name, "be a whole number, not negative, of 63 bits at most")
    return found


def timestamp(value: Json, name: str) -> int:
    """Return Unix milliseconds, not after the year 9999."""
    found = value.get(name)
    if type(found) is not int or not 0 <= found <= MAX_TIME_MS:
        refuse(name, "be Unix milliseconds, not after the year 9999")
    return found


def optional_timestamp(value: Json, name: str) -> int | None:
    """Return Unix milliseconds, None when the field is missing or null."""
    return None if value.get(name) is None else timestamp(value, name)


def optional_text(value: Json, name: str, limit: int) -> str | None:
    """Return a text of at most `limit` characters, none a control character; None when it is missing."""
    found = value.get(name)
    if found is None or found == "":
        return found
    return text(value, name, limit)


def one_of(value: Json, name: str, allowed: Sequence[_S]) -> _S:
    """Return one of the allowed texts."""
    found = value.get(name)
    matches = [choice for choice in allowed if choice == found]
    if not matches:
        refuse(name, f"be one of {', '.join(allowed)}")
    return matches[0]


def matching(value: Json, name: str, pattern: re.Pattern[str], field: str = "") -> str:
    """Return a text of the given form."""
    found = value.get(name)
    if not isinstance(found, str) or pattern.fullmatch(found) is None:
        refuse(field or name, f"have the form {pattern.pattern}")
    return found


def text(value: Json, name: str, limit: int = MAX_TEXT_CHARACTERS, field: str = "") -> str:
    """Return a text of 1 to `limit` characters without control characters."""
    found = value.get(name)
    if not isinstance(found, str) or not 0 < len(found) <= limit or has_control(found):
        refuse(field or name, f"be a text of 1 to {limit} characters, none of them a control character")
    return found


def object_of(value: Json, name: str) -> Json:
    """Return a JSON object."""
    found = value.get(name)
    if not isinstance(found, dict):
        refuse(name, "be a JSON object")
    return found


def optional_object(value: Json, name: str) -> Json:
    """Return a JSON object, empty when the field is missing."""
    return object_of(value, name) if name in value else {}


def boolean(value: Json, name: str) -> bool:
    """Return true or false."""
    found = value.get(name)
    if not isinstance(found, bool):
        refuse(name, "be true or false")
    return found


def binary(value: Json, name: str, length: int) -> bytes:
    """Return exactly `length` bytes."""
    raw = from_base64(value.get(name))
    if raw is None or len(raw) != length:
        refuse(name, f"be {length} bytes in base64")
    return raw


def each(value: Json, name: str, check: Callable[[object, str], _T], limit: int = MAX_LIST) -> tuple[_T, ...]:
    """Return a list of at most `limit` items, each read by `check`."""
    found = value.get(name)
    if not isinstance(found, list) or len(found) > limit:
        refuse(name, f"be a list of at most {limit}")
    return tuple(check(item, name) for item in found)


def feature_name(value: object, field: str) -> str:
    """Return the name of a feature."""
    if not isinstance(value, str) or NAME.fullmatch(value) is None:
        refuse(field, "hold names of features")
    return value


def pubkey(value: object, field: str) -> str:
    """Return a public key."""
    if not isinstance(value, str) or HEX_32.fullmatch(value) is None:
        refuse(field, "hold keys of 64 lower-case hexadecimal characters")
    return value


def member_id(value: object, field: str) -> str:
    """Return the id of a member."""
    if not isinstance(value, str) or UUID_TEXT.fullmatch(value) is None:
        refuse(field, "hold ids of members")
    return value


def version(value: object, field: str) -> int:
    """Return a version number, from 1."""
    if type(value) is not int or not 0 < value <= MAX_INTEGER:
        refuse(field, "hold versions, whole numbers from 1")
    return value


def integers(value: Json, name: str, limit: int) -> tuple[int, ...]:
    """Return a list of at most `limit` whole numbers."""
    found = value.get(name)
    if not isinstance(found, list) or len(found) > limit:
        refuse(name, f"be a list of at most {limit}")
    for number in found:
        if type(number) is not int or not 0 <= number <= MAX_INTEGER:
            refuse(name, "hold whole numbers")
    return tuple(found)


def offer(value: Json, name: str) -> Json:
    """Return an object of at most 64 features by name. `features.negotiate` judges their parameters."""
    found = object_of(value, name)
    if len(found) > MAX_LIST:
        refuse(name, f"hold at most {MAX_LIST} features")
    for feature in found:
        feature_name(feature, name)
    return found


def refuse(field: str, what: str) -> NoReturn:
    """Raise the error for a wrong field; `what` follows after "must"."""
    raise InvalidField(INVALID_FRAME, field, f"{field} must {what}.")
