"""Output of a log file of JSON lines, for `daemon logs` and `broker logs`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import click
import orjson

from claudemesh.cli import output
from claudemesh.cli.streams import stdout_hung_up
from claudemesh.runtime.exits import CONFIGURATION, ExitWith
from claudemesh.runtime.files import open_own

F = TypeVar("F", bound=Callable[..., Any])

_POLL_S = 0.2
_TAIL_BYTES = 1 << 20


def log_options(function: F) -> F:
    """Add `--follow` and `--lines`."""
    follow = click.option("-f", "--follow", is_flag=True, help="Continue as it is written.")
    lines = click.option(
        "-n",
        "--lines",
        type=click.IntRange(0, 100_000),
        default=50,
        show_default=True,
        help="Number of lines.",
    )
    return follow(lines(function))


def show_log(path: Path, *, name: str, follow: bool, lines: int, as_json: bool) -> None:
    """Print the last lines of the log of a `daemon` or `broker`, then those that follow."""
    try:
        file = open_own(path, for_root=True)
    except FileNotFoundError:
        text = f"There is no log file {path}: the {name} was never started in the background."
        raise ExitWith(CONFIGURATION, "no_log", text, next=f"claudemesh {name} up -d") from None
    with file:
        start = max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES)
        file.seek(start)
        known = file.read()
    # The first line is cut when the file is longer than what was read.
    whole = known.splitlines()[1 if start else 0 :]
    for line in whole[len(whole) - lines :] if lines else ():
        _show(line, as_json)
    if follow:
        for line in _follow(path, start + len(known)):
            _show(line, as_json)


def _follow(path: Path, at: int) -> Iterator[bytes]:
    """Yield lines as they are written, over rotations of the file, until the reader of stdout has gone."""
    file = open_own(path, for_root=True)
    file.seek(at)
    rest = b""
    while True:
        piece = file.read()
        if piece:
            *whole, rest = (rest + piece).split(b"\n")
            yield from whole
            continue
        with suppress(FileNotFoundError):
            now = path.stat()
            if now.st_ino != _inode(file) or now.st_size < file.tell():
                file.close()
                file = open_own(path, for_root=True)
                continue
        if stdout_hung_up():
            return
        time.sleep(_POLL_S)


def _inode(file: Any) -> int:
    return os.fstat(file.fileno()).st_ino


def _show(line: bytes, as_json: bool) -> None:
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError:
        fields = None
    if not isinstance(fields, dict):
        output.say(line.decode(errors="replace"))
        return
    if as_json:
        output.print_json(fields)
        return
    head = [str(fields.pop(name, "")) for name in ("ts", "level", "event")]
    fields.pop("logger", None)
    trace = fields.pop("traceback", None)
    rest = "  ".join(f"{name}={value}" for name, value in fields.items())
    output.say(output.safe(f"{head[0]}  {head[1]:<7}  {head[2]}  {rest}".rstrip()))
    if trace:
        output.say("\n".join(f"    {part}" for part in str(trace).splitlines()))
