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

from claudemesh.runtime.exits import INTERNAL, TEMPORARY, ExitWith

# A process that ends is found at once: this only ends the wait for one that hangs, also on a slow machine.
_START_S = 120.0
# Time for the first attempt to connect.
_SETTLE_S = 2.0
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
    # Tells whether the service, which is up, has tried all that can end it soon.
    is_settled: Callable[[], bool] = lambda: True


def start(
    service: Service,
    arguments: Sequence[str],
    environment: Mapping[str, str] | None = None,
    stdin: int | None = None,
) -> int | None:
    """Start a service, wait until it serves, and return its process id. `ExitWith` tells why it ended.

    None means that another process has started it in the meantime. `stdin` is the descriptor of a pipe that
    the service watches.
    """
    # Imported here: only a start needs it.
    from tempfile import TemporaryFile

    started_at = _end_of(service.log)
    # The service writes its log by itself; stderr holds what comes before that.
    with TemporaryFile() as errors:
        process = subprocess.Popen(
            [*program(), *arguments],
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
            env={**os.environ, **(environment or {}), "CLAUDEMESH_LOG_FILE": str(service.log)},
        )

        def ended() -> ExitWith | None:
            if process.poll() is None:
                return None
            errors.seek(0)
            return _ending(service, started_at, process.returncode, errors.read())

        return _wait(service, process.pid, ended)


def _wait(service: Service, pid: int, ended: Callable[[], ExitWith | None]) -> int | None:
    """Wait until the service of this process, or of another one that was faster, serves."""
    own: int | None = pid
    deadline = time.monotonic() + _START_S
    while not service.is_up(own):
        ending = ended() if own is not None else None
        if ending is not None:
            if ending.error != "already_running":
                raise ending
            own = None
        if time.monotonic() > deadline:
            raise ExitWith(
                TEMPORARY,
                "not_up_yet",
                f"The {service.name} does not answer within {_START_S:g} s. Its log is {service.log}.",
                next=service.logs_command,
            )
        time.sleep(_POLL_S)
    deadline = time.monotonic() + _SETTLE_S
    while own is not None and not service.is_settled() and time.monotonic() < deadline:
        ending = ended()
        if ending is not None:
            raise ending
        time.sleep(_POLL_S)
    return own


def program() -> list[str]:
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


def _ending(service: Service, started_at: int, code: int, errors: bytes) -> ExitWith:
    """Return the reason for which the process has ended: from its log, from stderr, or its signal."""
    told = _logged(service, started_at)
    if told is not None:
        return ExitWith(code if code > 0 else INTERNAL, *told)
    name = service.name
    if code < 0:
        cause = f"The {name} was ended by signal {-code} ({_signal_name(-code)}) while it started."
    else:
        lines = errors.decode(errors="replace").strip().splitlines()
        last = lines[-1].removeprefix("claudemesh: error: ") if lines else f"exit code {code}"
        cause = f"The {name} ended while it started: {last.rstrip('.')}."
    text = f"{cause} Its log is {service.log}."
    return ExitWith(code if code > 0 else INTERNAL, f"{name}_ended", text, next=service.logs_command)


def _signal_name(number: int) -> str:
    # Imported here: only a killed process needs it.
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def _logged(service: Service, started_at: int) -> tuple[str, str] | None:
    """Return error code and message of the end, from the part of the log that this start has written."""
    from claudemesh.runtime.files import open_own

    try:
        with open_own(service.log) as file:
            file.seek(started_at)
            lines = file.read().splitlines()
    except FileNotFoundError:
        return None
    for raw in reversed(lines):
        try:
            line = orjson.loads(raw)
        except orjson.JSONDecodeError:
            continue
        if line.get("event") == f"{service.name}_ended":
            return line["error"], line["detail"]
    return None
