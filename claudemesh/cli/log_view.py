"""Output of a log file of JSON lines, for `daemon logs` and `broker logs`."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import click
import orjson

from claudemesh.cli import output
from claudemesh.cli.display import is_terminal
from claudemesh.cli.options import Moment
from claudemesh.cli.streams import stdout_hung_up
from claudemesh.runtime.exits import CONFIGURATION, ExitWith
from claudemesh.runtime.files import open_own

F = TypeVar("F", bound=Callable[..., Any])

_POLL_S = 0.2
_TAIL_BYTES = 1 << 20
_LINES = 50
# In ascending order.
_LEVELS = ("debug", "info", "warning", "error", "critical")


@dataclass(frozen=True, slots=True)
class LogFilter:
    """The lines of a log that are shown: those since a moment, in ISO 8601, and of a level or above."""

    since: str | None = None
    level: str | None = None

    def holds(self, fields: dict[str, Any] | None) -> bool:
        """Whether a line is shown. A line that is not one of ours, such as one of a crash, always is."""
        if fields is None:
            return True
        if self.since is not None and _comparable(str(fields.get("ts", ""))) < _comparable(self.since):
            return False
        level = fields.get("level")
        if self.level is None or level not in _LEVELS:
            return True
        return _LEVELS.index(level) >= _LEVELS.index(self.level)


def log_options(function: F) -> F:
    """Add `--follow`, `--lines`, `--since` and `--level`."""
    follow = click.option("-f", "--follow", is_flag=True, help="Continue as it is written.")
    lines = click.option(
        "-n",
        "--lines",
        type=click.IntRange(0, 100_000),
        help=f"Number of lines. Default: {_LINES}, or all with --since.",
    )
    since = click.option(
        "--since",
        type=Moment(),
        metavar="TIME",
        help="Only lines since this time, such as 1h or 2026-01-31T12:00:00Z.",
    )
    level = click.option(
        "--level", type=click.Choice(_LEVELS[:-1]), help="Only lines of this level or above."
    )
    return follow(lines(since(level(function))))


def show_log(
    path: Path, *, name: str, follow: bool, lines: int | None, wanted: LogFilter, as_json: bool
) -> None:
    """Print the last lines of the log of a `daemon` or `broker`, then those that follow."""
    try:
        known, end = _known(path, lines, wanted)
    except FileNotFoundError:
        text = f"There is no log file {path}: the {name} was never started in the background."
        raise ExitWith(CONFIGURATION, "no_log", text, next=f"claudemesh {name} up -d") from None
    for line in known:
        _show(line, as_json)
    if follow:
        for line in _follow(path, end):
            if wanted.holds(_fields(line)):
                _show(line, as_json)


def _known(path: Path, lines: int | None, wanted: LogFilter) -> tuple[list[bytes], int]:
    """Return the last wanted lines that are written, and the end of the log."""
    most = _LINES if lines is None and wanted.since is None else lines
    with open_own(path, for_root=True) as file:
        size = os.fstat(file.fileno()).st_size
        if wanted == LogFilter():
            start = max(0, size - _TAIL_BYTES)
            file.seek(start)
            known = file.read()
            # The first line is cut when the file is longer than what was read.
            whole = known.splitlines()[1 if start else 0 :]
            return list(deque(whole, most)), start + len(known)
        found: deque[bytes] = deque(maxlen=most)
        if wanted.since is not None:
            for earlier in _rotated(path, wanted.since):
                found.extend(line for line in earlier if wanted.holds(_fields(line)))
        found.extend(line for line in file if wanted.holds(_fields(line)))
        return [line.rstrip(b"\n") for line in found], file.tell()


def _rotated(path: Path, since: str) -> Iterator[Iterator[bytes]]:
    """Yield the rotated files that were written since a moment, the oldest one first."""
    since_s = datetime.fromisoformat(since).timestamp()
    found = []
    for earlier in path.parent.glob(f"{path.name}.*"):
        number = earlier.name.removeprefix(f"{path.name}.")
        if number.isdigit() and earlier.stat().st_mtime >= since_s:
            found.append((int(number), earlier))
    for _, earlier in sorted(found, reverse=True):
        with open_own(earlier, for_root=True) as file:
            yield iter(file)


def _comparable(moment: str) -> str:
    """Return the moment in UTC to the millisecond, which sorts as text; both forms of UTC are in use."""
    return moment.removesuffix("Z").removesuffix("+00:00")


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


def _fields(line: bytes) -> dict[str, Any] | None:
    """Return the fields of a line, None when it is not one of ours."""
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return fields if isinstance(fields, dict) else None


def _time(iso: str) -> str:
    """Return the time of a line: in the zone of this host on a terminal, UTC elsewhere."""
    if not is_terminal():
        return iso
    # Imported here: only times on a terminal need it.
    from claudemesh.cli.times import precise

    try:
        return precise(iso)
    except ValueError:
        return iso


def _show(line: bytes, as_json: bool) -> None:
    fields = _fields(line)
    if fields is None:
        output.say(line.decode(errors="replace"))
        return
    if as_json:
        output.print_json(fields)
        return
    head = [str(fields.pop(name, "")) for name in ("ts", "level", "event")]
    head[0] = _time(head[0])
    fields.pop("logger", None)
    trace = fields.pop("traceback", None)
    rest = "  ".join(f"{name}={value}" for name, value in fields.items())
    output.say(output.safe(f"{head[0]}  {head[1]:<7}  {head[2]}  {rest}".rstrip()))
    if trace:
        output.say("\n".join(f"    {part}" for part in str(trace).splitlines()))
