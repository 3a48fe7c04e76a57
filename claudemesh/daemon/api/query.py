"""Query parameters: declared once, read strictly, and described in openapi.json by the same declaration."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

from claudemesh.daemon.outbox.request import check_topic_or_queue
from claudemesh.protocol.errors import InvalidField, ProtocolError
from claudemesh.protocol.ids import HEX_32, check_member_name
from claudemesh.runtime.clock import parse_iso

MAX_PARAMETERS: Final = 16
MAX_PAGE: Final = 500
DEFAULT_PAGE: Final = 100
_LARGEST: Final = (1 << 63) - 1
_DIGITS: Final = re.compile(r"[0-9]{1,19}")
_LONGEST: Final = 512


@dataclass(frozen=True, slots=True)
class Parameter:
    """One query parameter: its JSON schema, what it takes in words, and how it is read.

    `read` raises `ValueError` or `ProtocolError` for anything else.
    """

    name: str
    schema: Mapping[str, Any]
    takes: str
    read: Callable[[str], Any]
    default: Any = None


def parse_query(raw: bytes, parameters: Sequence[Parameter]) -> dict[str, Any]:
    """Return every parameter's value, or its default. `InvalidField` names the one that is wrong."""
    values = {parameter.name: parameter.default for parameter in parameters}
    if not raw:
        return values
    known = {parameter.name: parameter for parameter in parameters}
    given = set()
    for name, text in _pairs(raw):
        if name not in known:
            raise InvalidField("unknown_parameter", _shown(name), _unknown(list(known)))
        if name in given:
            raise InvalidField("invalid_parameter", name, f"Give {name} once.")
        given.add(name)
        values[name] = _read(known[name], text)
    return values


def _pairs(raw: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS
        )
    except ValueError:
        text = f"The query must be UTF-8, percent-encoded, with at most {MAX_PARAMETERS} parameters."
        raise ProtocolError("invalid_query", text) from None


def _read(parameter: Parameter, text: str) -> Any:
    try:
        if len(text) <= _LONGEST:
            return parameter.read(text)
    except (ValueError, OverflowError, ProtocolError):
        pass
    raise InvalidField("invalid_parameter", parameter.name, f"{parameter.name} must be {parameter.takes}.")


def _unknown(known: list[str]) -> str:
    return f"This route's parameters are {', '.join(known)}." if known else "This route takes no parameters."


def _shown(name: str) -> str:
    return name[:64]


def _whole(text: str) -> int:
    if _DIGITS.fullmatch(text) is None:
        raise ValueError
    return int(text)


def whole_number(name: str, low: int, high: int, default: int | None = None) -> Parameter:
    """A parameter in plain decimal digits, no sign, within bounds."""

    def read(text: str) -> int:
        value = _whole(text)
        if not low <= value <= high:
            raise ValueError
        return value

    schema: dict[str, Any] = {"type": "integer", "minimum": low, "maximum": high}
    if default is not None:
        schema["default"] = default
    return Parameter(name, schema, f"a whole number from {low} to {high}", read, default)


def page_limit(default: int = DEFAULT_PAGE) -> Parameter:
    """How many items a page may have."""
    return whole_number("limit", 1, MAX_PAGE, default)


def number_cursor() -> Parameter:
    """The `next` of the page before, where it is a row's number."""

    def read(text: str) -> str:
        if _whole(text) > _LARGEST:
            raise ValueError
        return text

    return Parameter("after", {"type": "string"}, "the `next` of the page before", read)


def name_cursor() -> Parameter:
    """The `next` of the page before, where it is a name."""
    return Parameter(
        "after", {"type": "string"}, "the `next` of the page before", lambda text: check_member_name(text)
    )


def sequence(name: str) -> Parameter:
    """An inbox seq."""
    return whole_number(name, 0, _LARGEST)


def page_order() -> Parameter:
    """Oldest first, or newest first."""
    return choice("order", ("asc", "desc"), "asc")


def choice(name: str, values: Sequence[str], default: str | None = None) -> Parameter:
    """One of a few words."""

    def read(text: str) -> str:
        if text not in values:
            raise ValueError
        return text

    schema: dict[str, Any] = {"type": "string", "enum": list(values)}
    if default is not None:
        schema["default"] = default
    return Parameter(name, schema, f"one of {', '.join(values)}", read, default)


def flag(name: str) -> Parameter:
    """True or false."""
    read = {"true": True, "false": False, "1": True, "0": False}.__getitem__

    def strict(text: str) -> bool:
        try:
            return read(text)
        except KeyError:
            raise ValueError from None

    return Parameter(name, {"type": "boolean", "default": False}, "true or false", strict, False)


def moment(name: str) -> Parameter:
    """A time in ISO 8601, read as Unix milliseconds."""
    takes = "a time such as 2026-01-02T03:04:05Z (a + in it must be written %2B)"
    return Parameter(name, {"type": "string", "format": "date-time"}, takes, parse_iso)


def topic(name: str) -> Parameter:
    """A topic's or queue's name, with or without its # or queue:."""
    takes = "a topic's name: 1 to 63 of a-z 0-9 . _ -"
    return Parameter(name, {"type": "string"}, takes, check_topic_or_queue)


def member(name: str) -> Parameter:
    """A member's name, with or without its @, or key."""

    def read(text: str) -> str:
        if HEX_32.fullmatch(text) is not None:
            return text
        return check_member_name(text.removeprefix("@"))

    return Parameter(name, {"type": "string"}, "a member's name or its key in 64 hexadecimal digits", read)
