"""Follower of a daemon's messages and events. It continues over restarts, until the reader of stdout has
gone."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TypeVar

from claudemesh.cli import output
from claudemesh.cli.streams import stdout_hung_up
from claudemesh.client.errors import ApiError, DaemonNotRunning
from claudemesh.client.local import LocalClient
from claudemesh.sdk import Daemon, DaemonError
from claudemesh.sdk import DaemonNotRunning as NotAnswering

T = TypeVar("T")

# Time for a restart of the daemon, in seconds; after it a command reports that no daemon runs.
RESTART_S = 20.0
_POLL_S = 0.2


class Follower:
    """A client whose iterators end when the reader of stdout has gone; `reader_gone` is true then."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.reader_gone = False

    def watch_stdout(self) -> None:
        """Wait until the reader of stdout has gone, then end the iterators."""
        if stdout_hung_up(None):
            self.reader_gone = True
            self.daemon.close()


@contextmanager
def following(client: LocalClient) -> Generator[Follower]:
    """Make a follower of a mesh's daemon. It waits for a daemon that does not run yet.

    A note on stderr reports that the daemon has gone, and another that it is back.
    """
    made = Follower(Daemon(socket_path=client.path, wait_for_daemon=True))
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


def retry_over_restart(ask: Callable[[], T], deadline: float) -> T:
    """Ask a daemon that may be restarting, until `deadline` (monotonic seconds), and then raise its error."""
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
        """Print a log message of the client as a note on stderr."""
        output.note(record.getMessage())
