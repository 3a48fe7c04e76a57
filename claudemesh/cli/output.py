"""Output of a command: tables on a terminal, tab-separated values in a pipe, JSON with --json.

Results go to stdout, notes and errors to stderr. Text for a terminal is neutralised (`runtime/terminal.py`);
JSON and bodies for a file or a pipe are written as UTF-8, unchanged. docs/cli.md describes all of it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TextIO

import orjson

from claudemesh.cli.display import columns as terminal_columns
from claudemesh.cli.display import display, is_terminal, wrapped
from claudemesh.cli.streams import discard_stdout
from claudemesh.cli.table import Column as Column
from claudemesh.cli.table import as_columns, key_of, plain_cells, terminal_cells
from claudemesh.runtime.terminal import safe as safe
from claudemesh.runtime.terminal import safe_json
from claudemesh.runtime.terminal import safe_lines as safe_lines

# The version of the JSON that commands print: raised when a field changes its meaning or goes.
SCHEMA = 1
# Lone surrogates, which have no UTF-8.
_LONE = re.compile("[\ud800-\udfff]")
_RED, _DIM, _PLAIN = "\x1b[31m", "\x1b[2m", "\x1b[0m"


class OutputFailed(Exception):
    """stdout cannot be written, and not because its reader has gone."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def print_json(value: Mapping[str, Any]) -> None:
    """Print an object as one line of JSON, with the version of its schema."""
    text = _as_json({"schema": SCHEMA, **value})
    _write_utf8(safe_json(text) if is_terminal() else text)


def _as_json(value: Mapping[str, Any]) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        # Imported here: only a text that is not UTF-8, such as a path in an error, needs it.
        import json

        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return _LONE.sub(lambda match: f"\\\\u{ord(match[0]):04x}", text)


def print_items(items: Sequence[Any], next: str | None = None, **more: Any) -> None:
    """Print a list as JSON; `next` is the cursor of its next page."""
    print_json({**more, "items": items, "next": next})


def say(text: str) -> None:
    """Print lines of the result."""
    _write(safe_lines(text))


def finding(text: str, *, hanging: int) -> None:
    """Print a sentence of the result; on a terminal its further lines are indented by `hanging`."""
    _write(wrapped(safe_lines(text), sys.stdout, hanging=hanging))


def body(text: str) -> None:
    """Print the body of a message: neutralised on a terminal, unchanged in a file or a pipe."""
    if is_terminal():
        say(text)
    else:
        _write_utf8(text.removesuffix("\n"))


def print_answer(
    as_json: bool,
    answer: Mapping[str, Any],
    text: str,
    *,
    next: Sequence[str] = (),
    made: str | None = None,
    hint: bool = True,
) -> int:
    """Print the answer to an action, as JSON or in words, and return exit code 0.

    `next` are commands that make sense after it: in JSON always, and in words where `hint` is set. `made` is
    the id or link that --quiet leaves of the words.

    The action is done. A stdout that cannot be written does not make it a failure, which a script would
    retry.
    """
    try:
        if as_json:
            print_json({**answer, "next": list(next)})
        elif not display.quiet:
            say(text)
        elif made is not None:
            say(made)
    except OutputFailed as failed:
        discard_stdout()
        note(f"The command succeeded, but its answer could not be written: {failed.cause.strerror}.")
    if hint and not as_json:
        for command in next:
            note(f"next: {command}")
    return 0


def note(text: str) -> None:
    """Print a remark that is not part of the result, on stderr."""
    if not display.quiet:
        _write_stderr(wrapped(safe_lines(text), sys.stderr))


def page(text: str) -> None:
    """Print a help page on stderr, for a group without a command."""
    _write_stderr(text)


def error(message: str, next_command: str | None = None) -> None:
    """Print an error on stderr, and the command that helps."""
    head = "claudemesh: error:"
    text = wrapped(f"{head} {safe(message)}", sys.stderr)
    _write_stderr(f"{_colour(head, _RED, sys.stderr)}{text.removeprefix(head)}")
    if next_command is not None:
        _write_stderr(f"try: {safe(next_command)}")


class Listing:
    """A table whose rows come one after the other. Its first line has the names of the columns.

    It is aligned on a terminal and tab-separated in a pipe. A value is a text, a number, a boolean, None, or
    a time in ISO 8601 in a column of that kind.
    """

    def __init__(self, columns: Sequence[str | Column]) -> None:
        self._columns = as_columns(columns)
        self._has_headers = display.headers
        # Widths of the rows that are printed, on a terminal.
        self._widths: list[int] | None = None

    def add(self, rows: Iterable[Sequence[object]]) -> None:
        """Print rows."""
        if display.quiet:
            place = key_of(self._columns)
            for row in rows:
                _write(plain_cells(self._columns, row)[place])
        elif is_terminal():
            self._draw(terminal_cells(self._columns, rows))
        else:
            if self._has_headers:
                _write("\t".join(column.header for column in self._columns))
            for row in rows:
                _write("\t".join(plain_cells(self._columns, row)))
        self._has_headers = False

    def _draw(self, cells: Sequence[Sequence[str]]) -> None:
        # Imported here: rich is for tables on a terminal alone.
        from claudemesh.cli.terminal_table import draw, draw_records, layout

        colour = display.has_colour(sys.stdout)
        widths = layout(self._columns, cells, terminal_columns(), self._widths)
        if widths is None:
            lines = draw_records(self._columns, cells, colour=colour)
        else:
            self._widths = [
                0 if column.kind == "body" else width
                for column, width in zip(self._columns, widths, strict=True)
            ]
            lines = draw(self._columns, cells, widths, headers=self._has_headers, colour=colour)
        for line in lines:
            _write(line)


def table(columns: Sequence[str | Column], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under the names of their columns."""
    Listing(columns).add(rows)


def fields(values: Mapping[str, object]) -> None:
    """Print names and values, one pair a line."""
    width = max(map(len, values))
    for name, value in values.items():
        _write(f"{_colour(name.ljust(width), _DIM, sys.stdout)}  {safe(value)}")


def span(seconds: float) -> str:
    """Return a duration for a sentence or a field: in its largest unit on a terminal, seconds elsewhere."""
    if not is_terminal():
        return f"{seconds:g} s"
    # Imported here: only times on a terminal need it.
    from claudemesh.cli.times import duration

    return duration(seconds)


def moment(iso: str | None, never: str = "never") -> str:
    """Return a time for a sentence or a field: local and relative on a terminal, UTC elsewhere."""
    if not iso:
        return never
    if not is_terminal():
        return iso
    # Imported here: only times on a terminal need it.
    from claudemesh.cli.times import local, relative

    return f"{local(iso)} ({relative(iso)})"


def _write(text: str) -> None:
    """Write a line to stdout. Raise `BrokenPipeError` when its reader has gone, `OutputFailed` for other
    causes."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputFailed(error) from error


def _write_utf8(text: str) -> None:
    """Write a line to stdout in UTF-8, also on a terminal with another encoding."""
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode() + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputFailed(error) from error


def _write_stderr(text: str) -> None:
    # An error that cannot be printed does not change the exit code.
    with suppress(OSError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def _colour(text: str, code: str, stream: TextIO) -> str:
    return f"{code}{text}{_PLAIN}" if display.has_colour(stream) else text
