"""Control of a running daemon: stops or reloads the process that answers on the socket.

The process id of the pid file or of `/v1/health` is only displayed. After the daemon has ended, or in
another PID namespace, it may belong to another process.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from claudemesh.client.errors import ApiError
from claudemesh.client.local import LocalClient, no_answer
from claudemesh.client.process import LocalProcess, find_process, is_elsewhere
from claudemesh.runtime.exits import CONFIGURATION, TEMPORARY, ExitWith
from claudemesh.runtime.files import FileLock
from claudemesh.runtime.peer import listener_on

_STOP_S = 20.0
_POLL_S = 0.02
_NOT_FOUND = 404


def stop(client: LocalClient, *, to_restart: bool = False) -> None:
    """Stop the daemon and wait for its end. Raise `DaemonNotRunning` when none answers.

    With `to_restart`, a daemon in another PID namespace is refused: it would be started again in this one.
    """
    if to_restart and is_elsewhere(client.path):
        raise _elsewhere(client)
    process = _process_of(client)
    if process is None:
        _ask_to_stop(client)
        return
    with closing(process):
        process.signal(signal.SIGTERM)
        if not process.ended_within(_STOP_S):
            raise _still_running(f"pid {process.pid}")


def reload_settings(client: LocalClient) -> dict[str, Any]:
    """Make a running daemon read config.toml again, and return the state of its configuration."""
    try:
        return client.post("/v1/reload")
    except ApiError as error:
        raise _too_old(client, "reloads by a signal only") if error.status == _NOT_FOUND else error from None


def valid_pid(client: LocalClient, health: Mapping[str, Any]) -> int | None:
    """Return the process id of the daemon; None for a daemon in another PID namespace."""
    peer = listener_on(client.path)
    if peer is None:
        # This kernel cannot name the process behind a socket. It has no PID namespaces either.
        pid: int = health["pid"]
        return pid
    return peer.pid or None


def shown_pid(client: LocalClient, health: Mapping[str, Any]) -> str:
    """Return the process id of the daemon for display."""
    pid = valid_pid(client, health)
    return "in another PID namespace" if pid is None else f"pid {pid}"


def _process_of(client: LocalClient) -> LocalProcess | None:
    try:
        return find_process(client.path)
    except OSError as error:
        raise no_answer(client.slug, error, os.environ) from error


def _ask_to_stop(client: LocalClient) -> None:
    """Stop a daemon over its API, when its process is not visible here. Its lock is free when it has
    ended."""
    try:
        client.post("/v1/shutdown")
    except ApiError as error:
        raise _too_old(client, "stops by a signal only") if error.status == _NOT_FOUND else error from None
    deadline = time.monotonic() + _STOP_S
    lock = FileLock(client.path.with_name("lock"))
    while lock.is_held():
        if time.monotonic() > deadline:
            raise _still_running("in another PID namespace")
        time.sleep(_POLL_S)


def _still_running(which: str) -> ExitWith:
    return ExitWith(
        TEMPORARY, "still_running", f"The daemon ({which}) has not ended within {_STOP_S:g} s. Try again."
    )


def _too_old(client: LocalClient, how: str) -> ExitWith:
    return ExitWith(
        CONFIGURATION,
        "daemon_too_old",
        f"The daemon of mesh {client.slug} has an older version, which {how}, and its process cannot be "
        "verified from here. Stop it where it was started (its terminal, service or container). "
        "Nothing was changed.",
    )


def _elsewhere(client: LocalClient) -> ExitWith:
    return ExitWith(
        CONFIGURATION,
        "daemon_elsewhere",
        f"The daemon of mesh {client.slug} runs in another PID namespace (a container). Restart it there, or "
        "run `claudemesh daemon down` and `claudemesh daemon up -d` to move it here. Nothing was changed.",
    )
