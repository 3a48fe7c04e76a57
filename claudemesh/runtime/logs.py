"""Structured logging: JSON lines with a stable event name and fields.

A field never holds a body, a key or a token. Callers are responsible for that; `_HIDDEN` is a second line
of defence.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import traceback
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import orjson

from claudemesh.runtime.terminal import safe

_HIDDEN = frozenset({"token", "authorization", "body", "message", "meta", "privkey", "seed", "passphrase"})
_BARE = re.compile(r"[!-~]+")
AUDIT = logging.CRITICAL + 10
logging.addLevelName(AUDIT, "AUDIT")
_MAX_BYTES = 100_000_000
_BACKUPS = 14


class EventLogger:
    """Wrapper of a standard logger: the first argument names the event, fields follow."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(f"claudemesh.{name}")

    def debug(self, event: str, **fields: Any) -> None:
        """Log an event for developers."""
        self._log(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """Log an event of normal operation."""
        self._log(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Log an event that an operator may have to look at."""
        self._log(logging.WARNING, event, fields)

    def error(self, event: str, *, exc_info: BaseException | None = None, **fields: Any) -> None:
        """Log a failure, with its traceback when there is one."""
        self._log(logging.ERROR, event, fields, exc_info)

    def audit(self, event: str, **fields: Any) -> None:
        """Log an event at any level setting."""
        self._log(AUDIT, event, fields)

    def _log(
        self, level: int, event: str, fields: dict[str, Any], error: BaseException | None = None
    ) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, extra={"fields": fields}, exc_info=error)


def get_logger(name: str) -> EventLogger:
    """Return the logger of one part, below `claudemesh`."""
    return EventLogger(name)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ts, level, event, logger, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; values that JSON does not know become their text."""
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
        }
        return _json(line | _fields(record))


class TerminalFormatter(logging.Formatter):
    """One line for a terminal: local time, level, event, fields as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and a traceback below it. Values are JSON: none of them drives the terminal."""
        fields = _fields(record)
        trace = fields.pop("traceback", "")
        words = [
            datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S"),
            f"{record.levelname.lower():<7}",
            record.getMessage(),
            *(f"{key}={_word(value)}" for key, value in fields.items()),
        ]
        return "\n".join([" ".join(words), *map(safe, trace.splitlines())])


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    given = getattr(record, "fields", {})
    fields = {key: "[hidden]" if key in _HIDDEN else value for key, value in given.items()}
    if record.exc_info and record.exc_info[1] is not None:
        fields["traceback"] = "".join(traceback.format_exception(record.exc_info[1]))
    return fields


def _word(value: object) -> str:
    if isinstance(value, str) and _BARE.fullmatch(value) is not None:
        return value
    return safe(_json(value))


def _json(value: object) -> str:
    """Return a value as JSON, also an integer beyond 64 bits or a file name that is not UTF-8."""
    try:
        return orjson.dumps(value, default=str).decode()
    except orjson.JSONEncodeError:
        return json.dumps(value, default=str)


class _LogFile(RotatingFileHandler):
    """A rotated file for this user alone; a symbolic link in its place is not followed."""

    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, "a", encoding="utf-8", opener=_open_unlinked)


def _open_unlinked(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def setup_logging(level: str = "info", path: Path | None = None) -> None:
    """Send our events as JSON lines to stderr, or to a rotated file when `path` is given.

    On a terminal they are plain lines. A log that cannot be written never stops the program: logging
    swallows its own errors.
    """
    logging.raiseExceptions = False
    handler: logging.Handler
    formatter: logging.Formatter = JsonFormatter()
    if path is None:
        handler = logging.StreamHandler(sys.stderr)
        formatter = TerminalFormatter() if sys.stderr.isatty() else formatter
    else:
        # Opened at the first line, so that a log that cannot be opened loses only its lines.
        handler = _LogFile(path, maxBytes=_MAX_BYTES, backupCount=_BACKUPS, delay=True)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    set_level(level)


def set_level(level: str) -> None:
    """Log from this level on: debug, info, warning or error."""
    logging.getLogger("claudemesh").setLevel(level.upper())
