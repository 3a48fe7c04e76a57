"""Strict JSON parsing and canonical JSON output by RFC 8785 (docs/spec/protocol.md, JSON).

Both have a fast path through orjson. It is taken only for values for which its result equals that of the
reference implementation.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any, Final

import orjson
import rfc8785

from claudemesh.protocol.errors import InvalidField, ProtocolError

MAX_DEPTH: Final = 64

# Matches the closing quote of each key. It also matches a quote inside a string if a colon follows.
_MAYBE_KEY: Final = re.compile(rb'"[ \t\n\r]*:')
# A whole string, and the colon that makes it a key. The time is linear for every input: the quantifiers are
# possessive, and a string that does not end matches too.
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"[ \t\n\r]*+(:?)|\\?\Z)', re.DOTALL)
_BRACKET: Final = re.compile(rb"[\[\]{}]")
# An integer of 19 digits or more may not fit 64 bits; orjson turns it into a float.
_LONG_DIGITS: Final = re.compile(rb"[0-9]{19}")
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")

_PLAIN: Final = frozenset((str, int, bool, type(None)))
_SORTED: Final = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER
# Between these bounds orjson writes a fraction as ECMAScript does: shortest digits, no exponent.
_SMALL_TO: Final = 1e-5
_FLOAT_MAX: Final = 1e15
# Both write an exponent below 1e-6 and from 1e21 on. They differ from 1e-6 to 1e-5 and from 1e15 to 1e21.
_SMALL_FROM: Final = 1e-6
_LARGE_TO: Final = 1e21
# Below this bound a float without a fraction has the digits of the integer.
_EXACT_INTEGERS: Final = 2.0**53


class _NotPlain(Exception):
    """A value that the fast path does not cover."""


def parse_json(raw: bytes, *, max_depth: int = MAX_DEPTH) -> Any:
    """Return the value of a JSON text.

    `ProtocolError`: invalid_json (not UTF-8, a byte order mark, NaN, a lone surrogate and the like),
    json_too_deep, duplicate_field, and meta_not_canonical for a value within `meta` that RFC 8785 cannot
    represent.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        # The reference gives the reason. An integer beyond the largest float it accepts.
        return parse_json_exactly(raw, max_depth=max_depth)
    depth, keys, floats = _survey(value)
    if depth > max_depth:
        raise _too_deep(max_depth)
    if keys != _maybe_keys(raw) and keys != _STRING.findall(raw).count(b":"):
        return parse_json_exactly(raw, max_depth=max_depth)  # a key stands twice
    if floats and _LONG_DIGITS.search(raw) is not None:
        return parse_json_exactly(raw, max_depth=max_depth)
    return value


def parse_json_exactly(raw: bytes, *, max_depth: int = MAX_DEPTH) -> Any:
    """Return what `parse_json` returns, without orjson. This is the reference, used for long integers too."""
    if _nesting(raw, max_depth) > max_depth:
        raise _too_deep(max_depth)
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise _invalid(str(error)) from error
    _check_representable(value)
    return value


def canonical_json(value: object) -> bytes:
    """Return the RFC 8785 form of a value. `ProtocolError` meta_not_canonical: it has none."""
    try:
        if _is_simple(value):
            return orjson.dumps(value, option=_SORTED)
        return orjson.dumps(_spelt(value), option=orjson.OPT_STRICT_INTEGER)
    except (_NotPlain, orjson.JSONEncodeError, RecursionError):
        return canonical_json_exactly(value)  # the reference gives the reason


def canonical_json_exactly(value: object) -> bytes:
    """Return what `canonical_json` returns, by the reference implementation alone."""
    try:
        return rfc8785.dumps(value)  # type: ignore[arg-type]
    except (ValueError, RecursionError) as error:
        raise ProtocolError(
            "meta_not_canonical",
            "The meta holds a value that RFC 8785 cannot represent. Use finite numbers, integers within "
            "±(2^53−1), and text without lone surrogates.",
            field="meta",
        ) from error


def canonical_meta(meta: object) -> bytes:
    """Return the form of a meta that the fingerprint covers: empty for None and `{}`.

    Bytes are taken for this form and returned. `InvalidField` invalid_meta: not an object.
    """
    if meta is None:
        return b""
    if type(meta) is bytes:
        return meta
    if not isinstance(meta, dict):
        raise InvalidField("invalid_meta", "meta", "meta must be a JSON object.")
    return canonical_json(meta) if meta else b""


def _maybe_keys(raw: bytes) -> int:
    """Count the matches of `_MAYBE_KEY`. Without white space a plain search finds the same ones."""
    if b" " in raw or b"\n" in raw or b"\t" in raw or b"\r" in raw:
        return len(_MAYBE_KEY.findall(raw))
    return raw.count(b'":')


def _survey(value: object) -> tuple[int, int, bool]:
    """Return the depth of a value, its number of keys, and whether it holds a float. Goes level by level."""
    depth, keys, floats = 0, 0, type(value) is float
    level: list[Any] = [value] if type(value) is dict or type(value) is list else []
    while level:
        depth += 1
        below: list[Any] = []
        for container in level:
            if type(container) is dict:
                keys += len(container)
                members = container.values()
            else:
                members = container
            for member in members:
                kind = type(member)
                if kind is str:
                    continue
                if kind is dict or kind is list:
                    below.append(member)
                elif kind is float:
                    floats = True
        level = below
    return depth, keys, floats


def _is_simple(value: object) -> bool:
    """Tell whether orjson writes a value as RFC 8785 does. Integers beyond its range it refuses by itself.

    Keys must be ASCII, because only then the orders of UTF-8 and UTF-16 always agree.
    """
    pending = [value]
    while pending:
        member = pending.pop()
        kind = type(member)
        if kind in _PLAIN:
            continue
        if isinstance(member, float):
            if kind is not float or member.is_integer() or not _SMALL_TO <= abs(member) < _FLOAT_MAX:
                return False
        elif kind is dict:
            for key, inner in member.items():  # type: ignore[attr-defined]
                if type(key) is not str or not key.isascii():
                    return False
                if type(inner) not in _PLAIN:
                    pending.append(inner)
        elif kind is list:
            pending.extend(member)  # type: ignore[arg-type]
        else:
            return False
    return True


def _spelt(value: object) -> object:
    """Return a value that orjson writes unsorted as RFC 8785 writes the given one. `_NotPlain`."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is float:
        return _number(value)  # type: ignore[arg-type]
    if kind is list:
        return [inner if type(inner) in _PLAIN else _spelt(inner) for inner in value]  # type: ignore[attr-defined]
    if kind is not dict:
        raise _NotPlain
    names = list(value)  # type: ignore[call-overload]
    if not all(type(name) is str for name in names):
        raise _NotPlain
    # Code points and UTF-16 units differ in order only beyond the basic plane.
    names.sort(key=None if all(map(str.isascii, names)) else _utf16)
    return {name: _spelt(value[name]) for name in names}  # type: ignore[index]


def _number(number: float) -> int | float | orjson.Fragment:
    """Return a value that orjson writes as ECMAScript writes this number (RFC 8785, 3.2.2.3)."""
    size = abs(number)
    if size < _EXACT_INTEGERS and number.is_integer():
        return int(number)
    if _SMALL_TO <= size < _FLOAT_MAX or size < _SMALL_FROM or _LARGE_TO <= size < math.inf:
        return number
    if not size < math.inf:
        raise _NotPlain
    # Python writes the same shortest digits, but with an exponent.
    mantissa, _, exponent = repr(number).partition("e")
    return orjson.Fragment(_positional(mantissa, int(exponent or 0)))


def _positional(mantissa: str, exponent: int) -> str:
    """Return the positional form of a decimal number that is given as d.ddd and a power of ten."""
    sign = "-" if mantissa[0] == "-" else ""
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    fraction = "" if fraction == "0" else fraction
    if exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{whole}{fraction}"
    fraction = fraction.ljust(exponent, "0")
    rest = fraction[exponent:]
    return f"{sign}{whole}{fraction[:exponent]}{'.' + rest if rest else ''}"


def _utf16(name: str) -> bytes:
    return name.encode("utf-16be", "surrogatepass")


def _nesting(raw: bytes, limit: int) -> int:
    """Return the nesting depth of the brackets outside of strings. Counting stops beyond `limit`."""
    if raw.count(b"[") + raw.count(b"{") <= limit:
        return 0
    depth = deepest = 0
    for match in _BRACKET.finditer(_STRING.sub(b"", raw)):
        depth += 1 if match[0] in b"[{" else -1
        deepest = max(deepest, depth)
        if deepest > limit:
            break
    return deepest


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        name = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise InvalidField(
            "duplicate_field", _shown(name), "A field stands twice in one object. Send it once."
        )
    return members


def _check_representable(value: object) -> None:
    """Refuse values that Python's parser accepts and JSON does not have. The error names the top field."""
    members = value.items() if isinstance(value, dict) else (("", value),)
    for name, member in members:
        if _SURROGATE.search(name) is not None or _has_unrepresentable(member):
            # Within meta this has a code of its own (docs/spec/protocol.md, Request fingerprint).
            code = "meta_not_canonical" if name == "meta" else "invalid_json"
            raise InvalidField(
                code,
                _shown(name),
                "A number is not finite, or a text holds a lone surrogate. JSON has neither.",
            )


def _has_unrepresentable(value: object) -> bool:
    pending = [value]
    while pending:
        member = pending.pop()
        if isinstance(member, str):
            if _SURROGATE.search(member) is not None:
                return True
        elif isinstance(member, float):
            if not math.isfinite(member):
                return True
        elif isinstance(member, dict):
            pending.extend(member)
            pending.extend(member.values())
        elif isinstance(member, list):
            pending.extend(member)
    return False


def _shown(path: str) -> str:
    return path[:200].encode("utf-8", "replace").decode()


def _too_deep(max_depth: int) -> ProtocolError:
    return ProtocolError(
        "json_too_deep", f"The JSON nests more than {max_depth} levels deep. Send a flatter value."
    )


def _invalid(reason: str) -> ProtocolError:
    return ProtocolError("invalid_json", f"The text is not valid JSON in UTF-8: {_shown(reason)}.")
