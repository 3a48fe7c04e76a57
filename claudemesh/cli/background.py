"""Start of a daemon or a broker in the background, for `up -d` and `restart`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from claudemesh.runtime.exits import CONFIGURATION, TEMPORARY, ExitWith

_START_S = 30.0
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Service:
    """A program that goes on in the background and logs to a file."""

    # `daemon` or `broker`: in sentences, and in the log event `<name>_ended`.
    name: str
    log: Path
    # The command that shows the log.
    logs_command: str
    # Tells whether the process of this id serves; with None, whether any process does.
    is_up: Callable[[int | None], bool]


def start(
    service: Service, arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> int | None:
    """Start a service, wait until it serves, and return its process id. `ExitWith` tells why it ended.

    None means that another process has started it in the meantime.
    """
    started_at = _end_of(service.log)
    process = subprocess.Popen(
        [*_program(), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, **(environment or {}), "CLAUDEMESH_LOG_FILE": str(service.log)},
    )
    pid: int | None = process.pid
    deadline = time.monotonic() + _START_S
    while not service.is_up(pid):
        code = process.poll()
        if code is not None and pid is not None:
            error, message = _last_error(service, started_at)
            if error != "already_running":
                raise ExitWith(code or CONFIGURATION, error, message)
            pid = None
        if time.monotonic() > deadline:
            raise ExitWith(
                TEMPORARY,
                "not_up_yet",
                f"The {service.name} does not answer within {_START_S:g} s. Its log is {service.log}.",
                next=service.logs_command,
            )
        time.sleep(_POLL_S)
    return pid


def _program() -> list[str]:
    """Return the command line that starts this program again: the archive or the module."""
    # Imported here: only a start needs it.
    import zipfile

    own = Path(sys.argv[0])
    if zipfile.is_zipfile(own):
        return [sys.executable, "-IS", str(own.resolve())]
    return [sys.executable, "-m", "claudemesh"]


def _end_of(log: Path) -> int:
    # Imported here: only a start looks at the log.
    from claudemesh.runtime.files import open_own

    try:
        with open_own(log) as file:
            return file.seek(0, os.SEEK_END)
    except FileNotFoundError:
        return 0


def _last_error(service: Service, started_at: int) -> tuple[str, str]:
    """Return error code and message of a process that ended while it started."""
    from claudemesh.runtime.files import open_own

    try:
        with open_own(service.log) as file:
            file.seek(started_at)
            lines = file.read().splitlines()
    except FileNotFoundError:
        lines = []
    for raw in reversed(lines):
        try:
            line = orjson.loads(raw)
        except orjson.JSONDecodeError:
            continue
        if line.get("event") == f"{service.name}_ended":
            return line["error"], line["detail"]
    return (
        f"{service.name}_ended",
        f"The {service.name} ended while it started. Its log is {service.log}.",
    )
