"""Standard streams of a command: handling of closed streams, other encodings than UTF-8, and a reader that
has gone."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper

_MODES = {"stdin": "r", "stdout": "w", "stderr": "w"}


def prepare_streams() -> None:
    """Make stdin, stdout and stderr safe to use; called before anything else is opened.

    A closed descriptor is replaced by /dev/null, so that no socket or database takes the number of a standard
    stream. On a terminal of another encoding, characters that it lacks are escaped, as \\u1f680.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name, mode in _MODES.items():
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flush_stdout() -> OSError | None:
    """Flush stdout. When that fails, discard the buffer and return the error."""
    try:
        sys.stdout.flush()
    except OSError as error:
        discard_stdout()
        return error
    return None


def flush_stderr() -> None:
    """Flush stderr at the end. When that fails, discard the buffer: the exit code shows what went wrong."""
    try:
        sys.stderr.flush()
    except OSError:
        discard_stderr()


def discard_stdout() -> None:
    """Redirect stdout to /dev/null, with its buffer.

    Otherwise Python would report an error when it flushes stdout at shutdown.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def discard_stderr() -> None:
    """Redirect stderr to /dev/null: a service in the background goes on in its log."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def stdout_hung_up(timeout_s: float | None = 0.0) -> bool:
    """Whether the reader of stdout has gone. Waits up to `timeout_s` seconds, or without a limit if it is
    None."""
    # Imported here: only commands that follow something need it.
    import select

    poll = select.poll()
    try:
        # No event is requested: errors and hang-ups are always reported.
        poll.register(sys.stdout.fileno(), 0)
    except (AttributeError, OSError, ValueError):
        return False
    return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))
