"""Following a daemon from a command: over its restarts, until the reader of stdout has gone."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TypeVar

from claudemesh.cli import output
from claudemesh.client.errors import ApiError, DaemonNotRunning
from claudemesh.client.local import LocalClient
from claudemesh.sdk import Daemon, DaemonError
from claudemesh.sdk import DaemonNotRunning as NotAnswering

T = TypeVar("T")

# Time that a daemon gets for a restart before a command says that none runs.
RESTART_S = 20.0
_POLL_S = 0.2


class Following:
    """A client whose iterators end when the reader of stdout has gone; `reader_gone` tells that they did."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.reader_gone = False

    def watch_stdout(self) -> None:
        """Wait until stdout has no reader, then end the iterators."""
        if output.stdout_hung_up(None):
            self.reader_gone = True
            self.daemon.close()


@contextmanager
def following(client: LocalClient) -> Generator[Following]:
    """Follow a mesh's daemon, and wait for one that does not run yet.

    The user is told once when the daemon goes away and once when it is back.
    """
    made = Following(Daemon(socket_path=client.path, wait_for_daemon=True))
    threading.Thread(target=made.watch_stdout, name="stdout_watch", daemon=True).start()
    handler = _Notes()
    logger = logging.getLogger("claudemesh")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield made
    except NotAnswering as error:
        raise DaemonNotRunning(client.slug) from error
    except DaemonError as error:
        raise ApiError(error.status, error.body or {"error": error.code, "message": error.message}) from error
    finally:
        logger.removeHandler(handler)
        made.daemon.close()


def patiently(ask: Callable[[], T], deadline: float) -> T:
    """Ask a daemon that may be restarting, until `deadline` (monotonic); raises the last error then."""
    while True:
        try:
            return ask()
        except (DaemonNotRunning, ApiError) as error:
            passing = isinstance(error, DaemonNotRunning) or error.status in (429, 503)
            if not passing or time.monotonic() > deadline:
                raise
        time.sleep(_POLL_S)


class _Notes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Show a message of the client on stderr."""
        output.note(record.getMessage())
