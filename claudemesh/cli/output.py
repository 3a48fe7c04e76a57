"""Output of every command: tables on a terminal, tabs in a pipe, JSON when asked for.

Results go to stdout, everything else to stderr. Everything that is written to a terminal is neutralised
(`runtime/terminal.py`); JSON and bodies that go to a file or a pipe stay exactly what was sent.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

import orjson

from claudemesh.runtime.terminal import safe as safe
from claudemesh.runtime.terminal import safe_json
from claudemesh.runtime.terminal import safe_lines as safe_lines

_BOLD, _RED, _DIM, _PLAIN = "\x1b[1m", "\x1b[31m", "\x1b[2m", "\x1b[0m"


def print_json(value: Any) -> None:
    """Print one JSON line."""
    text = orjson.dumps(value).decode()
    _write(sys.stdout, safe_json(text) if sys.stdout.isatty() else text)


def say(text: str) -> None:
    """Print lines of result."""
    _write(sys.stdout, safe_lines(text))


def body(text: str) -> None:
    """Print the body of a message: neutralised on a terminal, as it was sent in a file or a pipe."""
    if sys.stdout.isatty():
        say(text)
    else:
        _write(sys.stdout, text.removesuffix("\n"))


def note(text: str) -> None:
    """Tell the person something that is not the result."""
    _write(sys.stderr, safe_lines(text))


def tell(as_json: bool, answer: Mapping[str, Any], text: str) -> int:
    """Print an answer, as JSON or in words, and return exit code 0."""
    if as_json:
        print_json(answer)
    else:
        say(text)
    return 0


def error(message: str) -> None:
    """Say what went wrong, in the words that the error has."""
    _write(sys.stderr, f"{_colour('claudemesh: error:', _RED, sys.stderr)} {safe(message)}")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under their columns on a terminal, tab-separated and without a head in a pipe."""
    shown = [[safe(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in shown:
            _write(sys.stdout, "\t".join(row))
        return
    widths = [max(len(cell) for cell in column) for column in zip(columns, *shown, strict=True)]
    _write(sys.stdout, _colour(_line([name.upper() for name in columns], widths), _BOLD, sys.stdout))
    for row in shown:
        _write(sys.stdout, _line(row, widths))


def fields(values: Mapping[str, object]) -> None:
    """Print names and values, one a line."""
    width = max(map(len, values))
    for name, value in values.items():
        _write(sys.stdout, f"{_colour(name.ljust(width), _DIM, sys.stdout)}  {safe(value)}")


def _write(stream: TextIO, text: str) -> None:
    stream.write(text + "\n")
    stream.flush()


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _colour(text: str, code: str, stream: Any) -> str:
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"{code}{text}{_PLAIN}"
