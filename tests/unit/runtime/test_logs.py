"""Log lines for programs, and for a terminal."""

from __future__ import annotations

import logging
import sys

import orjson

from claudemesh.runtime.logs import JsonFormatter, TerminalFormatter


def record(**fields: object) -> logging.LogRecord:
    made = logging.LogRecord("claudemesh.link", logging.WARNING, "", 0, "link_down", None, None)
    made.fields = fields
    return made


def test_a_line_for_programs_is_json_with_its_fields() -> None:
    """ts, level, event and logger first; what JSON does not know becomes its text."""
    line = orjson.loads(JsonFormatter().format(record(reason="gone", retry_in_ms=5, what=ValueError("x"))))
    assert list(line) == ["ts", "level", "event", "logger", "reason", "retry_in_ms", "what"]
    assert (line["event"], line["level"], line["retry_in_ms"], line["what"]) == (
        "link_down",
        "warning",
        5,
        "x",
    )


def test_a_line_for_a_terminal_can_be_read_and_drives_nothing() -> None:
    """name=value, quoted where it has spaces; control and direction characters are spelt out."""
    line = TerminalFormatter().format(
        record(url="ws://b:1", reason="it is gone", name="\x1b[2J\u202eü", none=None)
    )
    assert (
        line[8:] == ' warning link_down url=ws://b:1 reason="it is gone" name="\\u001b[2J\\u202eü" none=null'
    )


def test_no_value_costs_a_line() -> None:
    """Not an integer beyond 64 bits, nor a file name that is no UTF-8."""
    for formatter in (JsonFormatter(), TerminalFormatter()):
        line = formatter.format(record(offered={"version": 10**30}, path="hooks/\udcff"))
        assert str(10**30) in line
        assert "udcff" in line


def test_neither_shows_what_is_to_be_hidden() -> None:
    """The net below careful callers."""
    for formatter in (JsonFormatter(), TerminalFormatter()):
        assert "s3cret" not in formatter.format(record(token="s3cret", body="s3cret"))


def test_a_traceback_stands_below_its_line() -> None:
    """One frame a line, as everywhere."""
    made = record()
    try:
        raise ValueError("bad \x1b[2J")
    except ValueError:
        made.exc_info = sys.exc_info()
    first, *trace = TerminalFormatter().format(made).splitlines()
    assert first.endswith("link_down")
    assert (trace[0], trace[-1]) == ("Traceback (most recent call last):", "ValueError: bad \\x1b[2J")
