"""Query parameters: declared once, parsed strictly, and described in openapi.json by the same declaration."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

from claudemesh.protocol.errors import InvalidField, ProtocolError
from claudemesh.runtime.clock import parse_iso

MAX_PARAMETERS: Final = 16
INVALID: Final = "invalid_parameter"
_LARGEST: Final = (1 << 63) - 1
_DIGITS: Final = re.compile(r"[0-9]{1,19}")
_LONGEST: Final = 512
_SHOWN_CHARACTERS: Final = 64


@dataclass(frozen=True, slots=True)
class Parameter:
    """One query parameter: its JSON schema, the allowed values in words, its parser and its longest text.

    `read` raises `ValueError` or `ProtocolError` for anything else, which becomes an error with `code`.
    """

    name: str
    schema: Mapping[str, Any]
    takes: str
    read: Callable[[str], Any]
    default: Any = None
    code: str = INVALID
    longest: int = _LONGEST


def parse_query(raw: bytes, parameters: Sequence[Parameter]) -> dict[str, Any]:
    """Return the value or default of every parameter. `InvalidField` names one that is wrong or unknown."""
    values = {parameter.name: parameter.default for parameter in parameters}
    if not raw:
        return values
    known = {parameter.name: parameter for parameter in parameters}
    given = set()
    for name, text in _pairs(raw):
        if name not in known:
            raise InvalidField("unknown_parameter", name[:_SHOWN_CHARACTERS], _unknown(list(known)))
        if name in given:
            raise InvalidField(INVALID, name, f"Give {name} once.")
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
        if len(text) <= parameter.longest:
            return parameter.read(text)
    except (ValueError, OverflowError, ProtocolError):
        pass
    raise InvalidField(parameter.code, parameter.name, f"{parameter.name} must be {parameter.takes}.")


def _unknown(known: list[str]) -> str:
    return f"This route's parameters are {', '.join(known)}." if known else "This route takes no parameters."


def _whole(text: str) -> int:
    if _DIGITS.fullmatch(text) is None:
        raise ValueError
    return int(text)


def whole_number(
    name: str, low: int, high: int, default: int | None = None, *, code: str = INVALID
) -> Parameter:
    """Declare a parameter in plain decimal digits, without a sign, from `low` to `high`."""

    def read(text: str) -> int:
        value = _whole(text)
        if not low <= value <= high:
            raise ValueError
        return value

    schema: dict[str, Any] = {"type": "integer", "minimum": low, "maximum": high}
    if default is not None:
        schema["default"] = default
    return Parameter(name, schema, f"a whole number from {low} to {high}", read, default, code)


def sequence(name: str) -> Parameter:
    """Declare a non-negative 63-bit number, such as an inbox seq."""
    return whole_number(name, 0, _LARGEST)


def cursor(read: Callable[[str], Any], *, code: str = INVALID) -> Parameter:
    """Declare `after`: the `next` of the page before, checked by `read`."""
    return Parameter("after", {"type": "string"}, "the `next` of the page before", read, code=code)


def number_cursor() -> Parameter:
    """Declare `after` where the cursor is a row's number."""

    def read(text: str) -> str:
        if _whole(text) > _LARGEST:
            raise ValueError
        return text

    return cursor(read)


def page_order() -> Parameter:
    """Declare `order`: asc (oldest first, the default) or desc (newest first)."""
    return choice("order", ("asc", "desc"), "asc")


def choice(name: str, values: Sequence[str], default: str | None = None) -> Parameter:
    """Declare a parameter that is one of a few words."""

    def read(text: str) -> str:
        if text not in values:
            raise ValueError
        return text

    schema: dict[str, Any] = {"type": "string", "enum": list(values)}
    if default is not None:
        schema["default"] = default
    return Parameter(name, schema, f"one of {', '.join(values)}", read, default)


def flag(name: str) -> Parameter:
    """Declare a boolean: true, false, 1 or 0."""
    values = {"true": True, "false": False, "1": True, "0": False}

    def read(text: str) -> bool:
        if text not in values:
            raise ValueError
        return values[text]

    return Parameter(name, {"type": "boolean", "default": False}, "true or false", read, False)


def moment(name: str) -> Parameter:
    """Declare a time in ISO 8601, parsed into Unix milliseconds."""
    takes = "a time such as 2026-01-02T03:04:05Z (a + in it must be written %2B)"
    return Parameter(name, {"type": "string", "format": "date-time"}, takes, parse_iso)
