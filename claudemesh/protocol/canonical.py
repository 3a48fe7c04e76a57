"""JSON in, strictly; JSON out, canonically (protocol.md, Request fingerprint; RFC 8785).

Both directions have a fast way, orjson, taken only where it is provably the same as the exact way.
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

# The closing quote of every key is found by it; so is a quote inside a string, if a colon follows.
_MAYBE_KEY: Final = re.compile(rb'"[ \t\n\r]*:')
# A whole string, and the colon that makes it a key. Possessive, and content with a string that never
# ends: so it is linear whatever comes.
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"[ \t\n\r]*+(:?)|\\?\Z)', re.DOTALL)
_BRACKET: Final = re.compile(rb"[\[\]{}]")
# From here on an integer may not fit 64 bits, and orjson would make a float of it.
_LONG_DIGITS: Final = re.compile(rb"[0-9]{19}")
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")

_PLAIN: Final = frozenset((str, int, bool, type(None)))
_SORTED: Final = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER
# orjson writes a fraction from 1e-5 to 1e15 as ECMAScript does: shortest digits, no exponent.
_SMALL_TO: Final = 1e-5
_FLOAT_MAX: Final = 1e15
# Both write an exponent below 1e-6 and from 1e21 on; only between these bounds do they differ.
_SMALL_FROM: Final = 1e-6
_LARGE_TO: Final = 1e21
# Below it a float without a fraction has the digits of the integer.
_EXACT_INTEGERS: Final = 2.0**53


class _NotPlain(Exception):
    """A value holds what only the exact way judges."""


def parse_json(raw: bytes, *, max_depth: int = MAX_DEPTH) -> Any:
    """Return the one value that a JSON text stands for, or refuse it.

    `ProtocolError`: invalid_json (not UTF-8, a byte order mark, NaN, a lone surrogate, …), json_too_deep,
    duplicate_field; meta_not_canonical when what JSON can spell but JCS cannot is within `meta`.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        # It says why, and lets pass what only orjson refuses: an integer beyond the largest float.
        return parse_json_exactly(raw, max_depth=max_depth)
    depth, keys, floats = _survey(value)
    if depth > max_depth:
        raise _too_deep(max_depth)
    if keys != len(_MAYBE_KEY.findall(raw)) and keys != _STRING.findall(raw).count(b":"):
        return parse_json_exactly(raw, max_depth=max_depth)  # it has a duplicate
    if floats and _LONG_DIGITS.search(raw) is not None:
        return parse_json_exactly(raw, max_depth=max_depth)
    return value


def parse_json_exactly(raw: bytes, *, max_depth: int = MAX_DEPTH) -> Any:
    """Do what `parse_json` does, without orjson: the reference, and the way for integers beyond 64 bits."""
    if _nesting(raw, max_depth) > max_depth:
        raise _too_deep(max_depth)
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise _invalid(str(error)) from error
    _check_representable(value)
    return value


def canonical_json(value: object) -> bytes:
    """Return the RFC 8785 form. `ProtocolError` meta_not_canonical for what it cannot represent."""
    try:
        if _is_simple(value):
            return orjson.dumps(value, option=_SORTED)
        return orjson.dumps(_spelt(value), option=orjson.OPT_STRICT_INTEGER)
    except (_NotPlain, orjson.JSONEncodeError, RecursionError):
        return canonical_json_exactly(value)  # the exact way finds out why


def canonical_json_exactly(value: object) -> bytes:
    """Do what `canonical_json` does, by the reference implementation alone."""
    try:
        return rfc8785.dumps(value)  # type: ignore[arg-type]
    except (ValueError, RecursionError) as error:
        raise ProtocolError(
            "meta_not_canonical",
            "meta must hold JSON values that RFC 8785 can represent: finite numbers, integers within "
            "±(2^53−1), no lone surrogates.",
            field="meta",
        ) from error


def canonical_meta(meta: object) -> bytes:
    """Return a meta as it is fingerprinted: empty when there is none; bytes are this form already.

    `InvalidField` invalid_meta.
    """
    if meta is None:
        return b""
    if type(meta) is bytes:
        return meta
    if not isinstance(meta, dict):
        raise InvalidField("invalid_meta", "meta", "meta must be a JSON object.")
    return canonical_json(meta) if meta else b""


def _survey(value: object) -> tuple[int, int, bool]:
    """Return how deep a value nests, how many keys it has, and whether it holds a float; level by level."""
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
                if kind is dict or kind is list:
                    below.append(member)
                elif kind is float:
                    floats = True
        level = below
    return depth, keys, floats


def _is_simple(value: object) -> bool:
    """Tell whether orjson writes a value as RFC 8785 does, but for integers that it refuses by itself.

    Keys must be ASCII: only there do UTF-8 and UTF-16 agree on the order without looking closer.
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
    """Return a value that orjson writes, without sorting, as RFC 8785 writes this one. `_NotPlain`."""
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
    # Only beyond the basic plane do code points and UTF-16 units differ in order.
    names.sort(key=None if all(map(str.isascii, names)) else _utf16)
    return {name: _spelt(value[name]) for name in names}  # type: ignore[index]


def _number(number: float) -> int | float | orjson.Fragment:
    """Return what orjson writes as ECMAScript writes this number (RFC 8785, 3.2.2.3)."""
    size = abs(number)
    if size < _EXACT_INTEGERS and number.is_integer():
        return int(number)
    if _SMALL_TO <= size < _FLOAT_MAX or size < _SMALL_FROM or _LARGE_TO <= size < math.inf:
        return number
    if not size < math.inf:
        raise _NotPlain
    # Python's shortest digits are the right ones; only the exponent must go.
    mantissa, _, exponent = repr(number).partition("e")
    return orjson.Fragment(_positional(mantissa, int(exponent or 0)))


def _positional(mantissa: str, exponent: int) -> str:
    """Return a decimal number, given as d.ddd and a power of ten, without the power."""
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
    """Return how deep the brackets outside of strings nest; counting ends once `limit` is passed."""
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
        raise InvalidField("duplicate_field", _shown(name), "An object may name a field only once.")
    return members


def _check_representable(value: object) -> None:
    """Refuse what Python's parser lets pass and JSON's rules do not; the error names the top field."""
    members = value.items() if isinstance(value, dict) else (("", value),)
    for name, member in members:
        if _SURROGATE.search(name) is not None or _has_unrepresentable(member):
            # protocol.md, Request fingerprint: within meta this has a code of its own.
            code = "meta_not_canonical" if name == "meta" else "invalid_json"
            raise InvalidField(
                code, _shown(name), "Numbers must be finite, and text may hold no lone surrogate."
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
    return ProtocolError("json_too_deep", f"JSON may nest {max_depth} deep at most: send it flatter.")


def _invalid(reason: str) -> ProtocolError:
    return ProtocolError("invalid_json", f"This is not valid JSON in UTF-8: {_shown(reason)}.")
