"""Output of a command: tables on a terminal, tab-separated values in a pipe, JSON with --json.

Results go to stdout, notes and errors to stderr. Text for a terminal is neutralised (`runtime/terminal.py`);
JSON and bodies for a file or a pipe are written as UTF-8, unchanged.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TextIO

import orjson

from claudemesh.cli.streams import discard_stdout
from claudemesh.runtime.terminal import safe as safe
from claudemesh.runtime.terminal import safe_json
from claudemesh.runtime.terminal import safe_lines as safe_lines

_BOLD, _RED, _DIM, _PLAIN = "\x1b[1m", "\x1b[31m", "\x1b[2m", "\x1b[0m"


class OutputFailed(Exception):
    """stdout cannot be written, and not because its reader has gone."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def print_json(value: Any) -> None:
    """Print a value as one line of JSON."""
    text = orjson.dumps(value).decode()
    _write_utf8(safe_json(text) if sys.stdout.isatty() else text)


def say(text: str) -> None:
    """Print lines of the result."""
    _write(safe_lines(text))


def body(text: str) -> None:
    """Print the body of a message: neutralised on a terminal, unchanged in a file or a pipe."""
    if sys.stdout.isatty():
        say(text)
    else:
        _write_utf8(text.removesuffix("\n"))


def print_answer(as_json: bool, answer: Mapping[str, Any], text: str) -> int:
    """Print the answer to an action, as JSON or in words, and return exit code 0.

    The action is done. A stdout that cannot be written does not make it a failure, which a script would
    retry.
    """
    try:
        if as_json:
            print_json(answer)
        else:
            say(text)
    except OutputFailed as failed:
        discard_stdout()
        note(f"The command succeeded, but its answer could not be written: {failed.cause.strerror}.")
    return 0


def note(text: str) -> None:
    """Print a remark that is not part of the result, on stderr."""
    _write_stderr(safe_lines(text))


def error(message: str, next_command: str | None = None) -> None:
    """Print an error on stderr, and the command that helps."""
    _write_stderr(f"{_colour('claudemesh: error:', _RED, sys.stderr)} {safe(message)}")
    if next_command is not None:
        _write_stderr(f"try: {safe(next_command)}")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under their columns on a terminal, tab-separated and without a head in a pipe."""
    shown = [[safe(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in shown:
            _write("\t".join(row))
        return
    widths = [max(len(cell) for cell in column) for column in zip(columns, *shown, strict=True)]
    _write(_colour(_line([name.upper() for name in columns], widths), _BOLD, sys.stdout))
    for row in shown:
        _write(_line(row, widths))


def fields(values: Mapping[str, object]) -> None:
    """Print names and values, one pair a line."""
    width = max(map(len, values))
    for name, value in values.items():
        _write(f"{_colour(name.ljust(width), _DIM, sys.stdout)}  {safe(value)}")


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


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _colour(text: str, code: str, stream: TextIO) -> str:
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"{code}{text}{_PLAIN}"
