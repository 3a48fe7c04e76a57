"""Follower of a daemon's messages and events. It continues over restarts, until the reader of stdout has
gone."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TypeVar

from claudemesh.cli import output
from claudemesh.cli.streams import stdout_hung_up
from claudemesh.client.errors import ApiError, DaemonNotRunning, MembershipEnded
from claudemesh.client.local import LocalClient, connect_trusted, membership_end, no_answer
from claudemesh.sdk import Daemon, DaemonError
from claudemesh.sdk import DaemonNotRunning as NotAnswering

T = TypeVar("T")

# Time for a restart of the daemon, in seconds; after it a command reports that no daemon runs.
RESTART_S = 20.0
_POLL_S = 0.2
_PORT_FILE = "http.port"


class Follower:
    """A client whose iterators end when the reader of stdout has gone; `reader_gone` is true then.

    They end as well when the membership of this host has ended, for then no daemon comes back.
    """

    def __init__(self, daemon: Daemon, slug: str) -> None:
        self.daemon = daemon
        self.reader_gone = False
        self.membership_end: MembershipEnded | None = None
        self._slug = slug

    def take_note(self, text: str) -> None:
        """Print a note of the client, and end the iterators when the membership has ended."""
        output.note(text)
        self.membership_end = membership_end(self._slug)
        if self.membership_end is not None:
            self.daemon.close()

    def watch_stdout(self) -> None:
        """Wait until the reader of stdout has gone, then end the iterators."""
        if stdout_hung_up(None):
            self.reader_gone = True
            self.daemon.close()


@contextmanager
def following(client: LocalClient) -> Generator[Follower]:
    """Make a follower of a mesh's daemon. It waits for a daemon that does not run yet.

    A note on stderr reports that the daemon has gone, and another that it is back. `MembershipEnded` when it
    has gone for good.
    """
    _refuse_in_vain(client)
    made = Follower(Daemon(socket_path=client.path, wait_for_daemon=True), client.slug)
    threading.Thread(target=made.watch_stdout, name="stdout_watch", daemon=True).start()
    handler = _Notes(made)
    logger = logging.getLogger("claudemesh")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield made
        if made.membership_end is not None:
            raise made.membership_end
    except NotAnswering as error:
        raise membership_end(client.slug) or DaemonNotRunning(client.slug) from error
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
            passing = error.may_start if isinstance(error, DaemonNotRunning) else error.status in (429, 503)
            if not passing or time.monotonic() > deadline:
                raise
        time.sleep(_POLL_S)


def _refuse_in_vain(client: LocalClient) -> None:
    """Raise the failure that no wait helps against: a membership that has ended, or a sandbox."""
    try:
        connect_trusted(client.path).close()
    except OSError as error:
        failure = no_answer(client.slug, error, os.environ)
        if isinstance(failure, DaemonNotRunning):
            if failure.may_start:
                return
        elif client.path.with_name(_PORT_FILE).exists():
            # The loopback serves in a sandbox.
            return
        raise failure from error


class _Notes(logging.Handler):
    def __init__(self, follower: Follower) -> None:
        super().__init__()
        self._follower = follower

    def emit(self, record: logging.LogRecord) -> None:
        """Give a log message of the client to the follower."""
        self._follower.take_note(record.getMessage())
