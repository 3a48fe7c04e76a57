"""What people and programs read: tables on a terminal, tabs in a pipe, JSON when asked for.

Results go to stdout, everything else to stderr. Text of other hosts never reaches the terminal raw.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from claudemesh.runtime.terminal import safe as safe

_BOLD, _RED, _DIM, _PLAIN = "\x1b[1m", "\x1b[31m", "\x1b[2m", "\x1b[0m"


def safe_lines(text: str) -> str:
    """Return text of several lines with everything else spelt out."""
    return "\n".join(safe(line) for line in text.removesuffix("\n").split("\n"))


def print_json(value: Any) -> None:
    """Print one JSON line."""
    sys.stdout.write(orjson.dumps(value).decode() + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """Print one line of result."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def discard_stdout() -> None:
    """Send what is still buffered, and all that follows, to nowhere: the reader of stdout has gone.

    Python flushes stdout once more while it shuts down, and would complain.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def stdout_hung_up(timeout_s: float | None = 0.0) -> bool:
    """Tell whether the reader of stdout has gone, waiting for that as long as `timeout_s`, or without end."""
    # Imported here: only commands that follow something need it.
    import select

    poll = select.poll()
    try:
        # No event is asked for: errors and hang-ups are reported all the same.
        poll.register(sys.stdout.fileno(), 0)
    except (AttributeError, OSError, ValueError):
        return False
    return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))


def note(text: str) -> None:
    """Tell the person something that is not the result."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def tell(as_json: bool, answer: Mapping[str, Any], text: str) -> int:
    """Print an answer, as JSON or in words, and return exit code 0."""
    if as_json:
        print_json(answer)
    else:
        say(text)
    return 0


def error(message: str) -> None:
    """Say what went wrong, in the words that the error has."""
    note(f"{_colour('claudemesh: error:', _RED, sys.stderr)} {safe(message)}")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under their columns on a terminal, tab-separated and without a head in a pipe."""
    shown = [[safe(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in shown:
            say("\t".join(row))
        return
    widths = [max(len(cell) for cell in column) for column in zip(columns, *shown, strict=True)]
    say(_colour(_line([name.upper() for name in columns], widths), _BOLD, sys.stdout))
    for row in shown:
        say(_line(row, widths))


def fields(values: Mapping[str, object]) -> None:
    """Print names and values, one a line."""
    width = max(map(len, values))
    for name, value in values.items():
        say(f"{_colour(name.ljust(width), _DIM, sys.stdout)}  {safe(value)}")


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _colour(text: str, code: str, stream: Any) -> str:
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"{code}{text}{_PLAIN}"
