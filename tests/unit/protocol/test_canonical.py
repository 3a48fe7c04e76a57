from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from claudemesh.protocol.canonical import canonical_json, canonical_meta, parse_json, parse_json_exactly
from claudemesh.protocol.errors import ProtocolError

TEXT = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ['"', "\\", '":', '\\":', ":", "{", "]", "a\\", "\u2028", "\x7f", "😀", "דּ", "€", '{"a": 1}']
)
NUMBERS = (
    st.integers(min_value=-(2**70), max_value=2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.floats(min_value=-1e22, max_value=1e22).map(lambda number: round(number, 3))
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
LOOSE = st.text('{}[]":,\\ \n0123456789eE+-.tfnulabdN\u00e9', max_size=24)


def code_of(raw: bytes, **limits: int) -> str:
    with pytest.raises(ProtocolError) as caught:
        parse_json(raw, **limits)
    assert caught.value.message
    return caught.value.code


def outcome(parse: Any, raw: bytes) -> tuple[str, object]:
    try:
        return "value", repr(parse(raw))
    except ProtocolError as error:
        return error.code, error.fields


@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_parsing_returns_the_value_of_the_text(value: object, ascii_only: bool, indent: int | None) -> None:
    """The fast path and the reference agree, for integers of any size too."""
    raw = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert repr(parse_json(raw)) == repr(value)
    assert repr(parse_json_exactly(raw)) == repr(value)


@given(LOOSE.map(str.encode) | st.binary(max_size=16))
@example(b'{"a\\\\":1,"a\\\\":2,"x":":"}')
@example(b'{"a":1,"\\u0061":2}')
@example(b'{"a":"\\":","a":1}')
@example(b'["\\":",{"":0}]')
@example(b"1e400")
@example(b"18446744073709551616")
@example(b"-9223372036854775809")
@example(b"1" + b"0" * 400)
@example(b"-0.0")
@example(b'"\\u0000"')
def test_fast_and_exact_parsing_agree_on_any_bytes(raw: bytes) -> None:
    """The same value or the same refusal."""
    assert outcome(parse_json, raw) == outcome(parse_json_exactly, raw)


@given(st.lists(st.tuples(TEXT, VALUES), min_size=1, max_size=5))
def test_a_text_with_a_duplicate_key_is_refused_and_no_other(pairs: list[tuple[str, object]]) -> None:
    """Two readers must never see different values of one field."""
    members = ",".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in pairs)
    raw = f'{{"x\\\\":[{{{members}}}]}}'.encode()
    if len({key for key, _ in pairs}) == len(pairs):
        assert repr(parse_json(raw)) == repr({"x\\": [dict(pairs)]})
    else:
        assert code_of(raw) == "duplicate_field"


def test_duplicate_is_named() -> None:
    """400 with a field name."""
    with pytest.raises(ProtocolError) as caught:
        parse_json(b'{"to":"a","message":"m","to":"b"}')
    assert caught.value.fields == {"field": "to"}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b'{"a":}',
        b"\xef\xbb\xbf{}",
        '{"a":1}'.encode("utf-16"),
        b'"\xff"',
        b"\xed\xa0\x80",
        b'"\\ud800"',
        b'{"\\udc00":1}',
        b'{"a":["\\ud83d"]}',
        b"NaN",
        b'{"a":-Infinity}',
        b"1e400",
        b"'a'",
        b'"\x01"',
        b"01",
        b"1.",
        b"{} {}",
        b"1" * 5000,
    ],
)
def test_invalid_json_is_refused(raw: bytes) -> None:
    """UTF-8 without a byte order mark, finite numbers, whole characters."""
    assert code_of(raw) == "invalid_json"


@pytest.mark.parametrize("meta", [b"NaN", b'{"n":1e400}', b'["\\ud800"]', b'{"\\udc00":1}', b"-Infinity"])
def test_meta_that_jcs_cannot_represent_has_its_own_code(meta: bytes) -> None:
    """docs/spec/protocol.md, Request fingerprint: 400 meta_not_canonical."""
    with pytest.raises(ProtocolError) as caught:
        parse_json(b'{"message":"m","meta":' + meta + b"}")
    assert (caught.value.code, caught.value.fields) == ("meta_not_canonical", {"field": "meta"})


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"k":', b"}]")])
@pytest.mark.parametrize("extra", [0, 1, 2000, 100_000])
def test_depth_is_bounded(opening: bytes, closing: bytes, extra: int) -> None:
    """64 levels, however they are spelt; far deeper must not exhaust the stack."""
    per_pair = opening.count(b"[") + opening.count(b"{")
    levels = 64 // per_pair + extra
    raw = opening * levels + b"1" + closing * levels
    if extra:
        assert code_of(raw) == "json_too_deep"
    else:
        parse_json(raw)
    with pytest.raises(ProtocolError, match="json_too_deep"):
        parse_json(raw, max_depth=8)


def test_brackets_in_text_are_no_depth() -> None:
    """A message may hold code."""
    value = {"message": "[" * 500 + '{"' * 500, "n": 2**64}
    assert parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 65 + b'"' + b'\\"' * 200_000,
        b"[" * 65 + b'"' + b"\\" * 400_001,
        b'{"a":"' + b'\\":' * 100_000 + b'","b":1.0000000000000000000001}',
        b"[" + b"[]," * 100_000 + b"1e400]",
        b'{"' + b"k" * 200_000 + b'":[' + b"1e400," * 1000 + b"1]}",
        b'{"a":"' + b'" ' * 100_000,
    ],
)
def test_hostile_text_costs_linear_time(raw: bytes) -> None:
    """No text makes the parser slow: these took minutes when a pattern was quadratic."""
    started = time.process_time()
    outcome(parse_json, raw)
    assert time.process_time() - started < 2


@given(VALUES)
@example({"\U0001f600": 1, "\ufb33": 2})
@example([0.1, 1e21, 1e-7, 1e-4, 1e15, 123456.789, 5e-324, -0.0, 1.0])
@example({"a": 2**53 - 1, "b": -(2**53) + 1})
def test_canonical_form_equals_the_reference(value: object) -> None:
    """RFC 8785, by both paths."""
    try:
        expected = rfc8785.dumps(value)  # type: ignore[arg-type]
    except rfc8785.CanonicalizationError:
        with pytest.raises(ProtocolError, match="meta_not_canonical"):
            canonical_json(value)
        return
    assert canonical_json(value) == expected


EDGES = st.builds(
    lambda digits, exponent: float(f"{digits}e{exponent}"),
    st.integers(min_value=0, max_value=10**17),
    st.integers(min_value=-26, max_value=24),
)


@given(
    st.floats(allow_nan=False, allow_infinity=False)
    | st.floats(min_value=1e-5, max_value=1e16)
    | st.floats(min_value=1e-7, max_value=1e-5)
    | st.floats(min_value=2.0**52, max_value=1e22)
    | EDGES
)
def test_every_float_is_written_as_the_reference_writes_it(number: float) -> None:
    """Both use the shortest digits. The notations differ beyond the bounds of the fast path."""
    assert canonical_json({"n": [number, -number]}) == rfc8785.dumps({"n": [number, -number]})


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1.0, b"1"),
        (-0.0, b"0"),
        (100.0, b"100"),
        (0.5, b"0.5"),
        (0.0001, b"0.0001"),
        (0.00001, b"0.00001"),
        (0.0000015, b"0.0000015"),
        (0.000001, b"0.000001"),
        (1e-7, b"1e-7"),
        (1e15, b"1000000000000000"),
        (1000000000000000.5, b"1000000000000000.5"),
        (1e16, b"10000000000000000"),
        (1e20, b"100000000000000000000"),
        (2.0**63, b"9223372036854776000"),
        (1.5e16, b"15000000000000000"),
        (9007199254740993.0, b"9007199254740992"),
        (1.2345678901234567e-6, b"0.0000012345678901234567"),
        (1.5e300, b"1.5e+300"),
        (1e21, b"1e+21"),
        (5e-324, b"5e-324"),
    ],
)
def test_numbers_are_written_as_ecmascript_does(number: float, text: bytes) -> None:
    """RFC 8785, 3.2.2.3. Each number alone decides the path."""
    assert canonical_json(number) == text
    assert canonical_json({"n": number}) == b'{"n":' + text + b"}"


@given(st.dictionaries(TEXT, st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=6))
@example({"\U0001f600": 1.0, "\ufb33": 1e20, "z": 2e-6})
def test_keys_are_sorted_by_utf_16_units(value: dict[str, float]) -> None:
    """RFC 8785, 3.2.3: a surrogate pair comes before the end of the basic plane."""
    assert canonical_json({"m": [value]}) == rfc8785.dumps({"m": [value]})


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        2**53,
        -(2**53),
        2**64,
        math.nan,
        math.inf,
        -math.inf,
        "\ud800",
        {"\udc00": 1},
        {1: 2},
        {"a": {None: 1}},
        b"bytes",
        {"a": object()},
        nested(100_000),
    ],
)
def test_values_that_jcs_cannot_represent_are_refused(value: object) -> None:
    """Non-finite numbers, integers beyond 2^53-1, lone surrogates, and values without a JSON form."""
    with pytest.raises(ProtocolError) as caught:
        canonical_json({"k": value})
    assert (caught.value.code, caught.value.status) == ("meta_not_canonical", 400)
    assert caught.value.fields == {"field": "meta"}


class Text(str):
    """A subclass, as enums are."""


def test_subclasses_are_written_by_the_reference() -> None:
    """The fast path covers exact types only."""
    assert canonical_json({"k": Text("v"), "t": (1, 2)}) == b'{"k":"v","t":[1,2]}'


@pytest.mark.parametrize("meta", [None, {}])
def test_no_meta_is_empty(meta: object) -> None:
    """Absent, null and {} are the same."""
    assert canonical_meta(meta) == b""


@pytest.mark.parametrize("meta", [[], "", 0, False, "a", [1]])
def test_meta_must_be_an_object(meta: object) -> None:
    """400 with a field name."""
    with pytest.raises(ProtocolError) as caught:
        canonical_meta(meta)
    assert (caught.value.code, caught.value.fields) == ("invalid_meta", {"field": "meta"})
