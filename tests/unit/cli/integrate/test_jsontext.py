"""Edits of JSON as text: values change, and everything else stays."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.cli.integrate.jsontext import append, cut, parse, put

SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=5), VALUES, max_size=4)


@given(OBJECTS, st.sampled_from([None, 2, "\t"]))
def test_what_was_put_is_there_and_cut_again_is_gone(
    values: dict[str, Any], indent: int | str | None
) -> None:
    """Into any object, in any layout. A container that is empty then goes too."""
    values.pop("a", None)
    text = json.dumps(values, indent=indent)
    assert parse(text).value == values
    more = put(text, ("a", "b"), {"c": [1]})
    assert parse(more).value == {**values, "a": {"b": {"c": [1]}}}
    again = append(more, ("a", "list"), 7)
    assert parse(again).value["a"] == {"b": {"c": [1]}, "list": [7]}
    rest = cut(again, lambda path, value: path == ("a", "b") or (path == ("a", "list") and value == 7))
    assert parse(rest).value == values


def test_comments_order_and_layout_of_the_rest_stay() -> None:
    """Line by line."""
    text = '{\n\t// the theme\n\t"theme": "dark", /* said */\n\t"servers": {"x": {}, },\n}\n'
    more = put(put(text, ("servers", "mine"), 1), ("last",), 2)
    assert all(line in more for line in ("\t// the theme", '\t"theme": "dark", /* said */', '"x": {}'))
    assert parse(more).value == {"theme": "dark", "servers": {"x": {}, "mine": 1}, "last": 2}
    rest = cut(more, lambda path, value: path in (("servers", "mine"), ("last",)))
    assert parse(rest).value == parse(text).value
    assert "// the theme" in rest


@pytest.mark.parametrize(
    "text", ["", "{", '{"a" 1}', '{"a": 1 "b": 2}', "{} {}", "[1,,2]", '{"a": nul}', "{a: 1}"]
)
def test_a_text_that_is_no_json_is_refused(text: str) -> None:
    """No edit guesses."""
    with pytest.raises(ValueError):
        parse(text)


def test_a_value_of_another_kind_in_the_way_is_refused() -> None:
    """It is the user's."""
    with pytest.raises(ValueError, match="no object"):
        put('{"a": 1}', ("a", "b"), 1)
    with pytest.raises(ValueError, match="no array"):
        append('{"a": {}}', ("a",), 1)
