from __future__ import annotations

from typing import Any

import orjson
import pytest

from claudemesh.protocol.jsontext import JsonText
from claudemesh.protocol.sealing import SessionNames, decode_content, encode_content
from claudemesh.protocol.traceparent import TraceContext, parse_traceparent, traceparent_in
from tests.unit.protocol.test_sealing import CONTEXT

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GIVEN = f"00-{TRACE}-{SPAN}-01"


def test_a_valid_value_is_read_and_written_again() -> None:
    """The example of the standard."""
    assert parse_traceparent(GIVEN) == TraceContext(TRACE, SPAN, sampled=True)
    assert TraceContext(TRACE, SPAN, sampled=True).traceparent == GIVEN
    assert TraceContext(TRACE, SPAN, sampled=False).traceparent == f"00-{TRACE}-{SPAN}-00"


@pytest.mark.parametrize(
    "value",
    [
        None,
        1,
        "",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01; rm",
    ],
)
def test_another_value_is_ignored(value: object) -> None:
    """As the standard asks."""
    assert parse_traceparent(value) is None


@pytest.mark.parametrize("form", [dict, orjson.dumps, lambda meta: orjson.dumps(meta).decode(), JsonText])
def test_a_meta_has_it_in_each_form(form: Any) -> None:
    """As a mapping, as JSON, and as JSON that is passed on."""
    meta: Any = {"a": 1, "traceparent": GIVEN}
    assert traceparent_in(JsonText(orjson.dumps(meta).decode()) if form is JsonText else form(meta)) == GIVEN
    assert traceparent_in(orjson.dumps({"a": "traceparent"})) is None
    assert traceparent_in(None) is None


def test_it_is_sealed_and_an_invalid_one_is_not_taken() -> None:
    """A daemon of another version may have written it."""
    raw = encode_content("x", b"", CONTEXT, sessions=SessionNames(traceparent=GIVEN))
    assert decode_content(raw).sessions.traceparent == GIVEN
    assert decode_content(raw.replace(b"-01", b"-0x")).sessions.traceparent is None
    assert b"traceparent" not in encode_content("x", b"", CONTEXT)
