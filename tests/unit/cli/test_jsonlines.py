"""Lines of JSON of the MCP server, by the standard library."""

from __future__ import annotations

import pytest

from claudemesh.cli.mcp.jsonlines import line_of, parsed


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"\xff",
        b"NaN",
        b'{"a":Infinity}',
        b'"\\ud800"',
        b'{"a":"\\uDC00x"}',
        b"[" * 200_000,
        b"1 2",
    ],
    ids=lambda line: line[:12].decode(errors="replace"),
)
def test_a_line_that_is_no_json_or_that_no_message_can_carry_is_refused(line: bytes) -> None:
    """With one kind of error, which the server answers."""
    with pytest.raises(ValueError):
        parsed(line)


def test_a_value_is_one_line_and_comes_back() -> None:
    """Also with line ends and characters beyond the first plane in it."""
    value = {"id": 2**70, "text": "a\nb\r\u2028\U0001f680", "none": None, "list": [True, 1.5]}
    line = line_of(value)
    assert line.count(b"\n") == 1
    assert parsed(line) == value
    assert parsed(b'"\\ud83d\\ude80"') == "\U0001f680"
