"""`claudemesh broker down`."""

from __future__ import annotations

import os
import signal
import time
from contextlib import closing
from pathlib import Path

import click

from claudemesh.cli import answers, output
from claudemesh.cli.broker.admin import data_dir_option
from claudemesh.cli.options import json_option
from claudemesh.client.meshes import meshes
from claudemesh.client.own_broker import OwnBroker, chosen_data_dir, find_broker, is_used
from claudemesh.client.process import find_user
from claudemesh.home.paths import daemon_paths
from claudemesh.runtime.exits import CONFIGURATION, TEMPORARY, ExitWith
from claudemesh.runtime.peer import listener_on

# Longer than a broker takes for its last answers and acknowledgements.
_STOP_S = 30.0
_POLL_S = 0.02


@click.command()
@data_dir_option
@json_option
@answers.action(status="string", data_dir="string")
def down(data_dir: Path | None, as_json: bool) -> int:
    """Stop the broker of this host. Accepted messages stay on disk.

    Answers that are due are given first. Members connect again when it is started again.

    \b
    Examples:
      claudemesh broker down
      claudemesh broker down --data-dir /var/lib/claudemesh
    """
    folder = chosen_data_dir(data_dir)
    if not is_used(folder):
        answer = {"status": "not running", "data_dir": str(folder)}
        return output.print_answer(as_json, answer, f"no broker runs with {folder}")
    found = find_broker(folder)
    if found is None:
        text = f"The broker with {folder} is starting or ending. Try again."
        raise ExitWith(TEMPORARY, "not_ready", text)
    _stop(found)
    answer = {"status": "stopped", "data_dir": str(folder)}
    return output.print_answer(as_json, answer, f"stopped the broker at {found.url}")


def _stop(found: OwnBroker) -> None:
    _refuse_embedded(found)
    process = find_user(found.data_dir / "lock", found.pid)
    if process is None:
        raise _not_held(found)
    with closing(process):
        process.signal(signal.SIGTERM)
    deadline = time.monotonic() + _STOP_S
    while is_used(found.data_dir):
        if time.monotonic() > deadline:
            text = f"The broker (pid {found.pid}) has not ended within {_STOP_S:g} s. Try again."
            raise ExitWith(TEMPORARY, "still_running", text)
        time.sleep(_POLL_S)


def _refuse_embedded(found: OwnBroker) -> None:
    for slug in meshes():
        peer = listener_on(daemon_paths(slug).sock)
        if peer is not None and peer.pid == found.pid:
            raise ExitWith(
                CONFIGURATION,
                "embedded_broker",
                f"This broker runs inside the daemon of mesh {slug} (--with-broker). Stop that daemon.",
                next=f"claudemesh daemon down --mesh {slug}",
            )


def _not_held(found: OwnBroker) -> ExitWith:
    where = "in another PID namespace (a container), or belongs to another user"
    remedy = "Stop it where it was started (its terminal, service or container)."
    if not hasattr(os, "pidfd_open"):
        where, remedy = "on a system that gives no hold of a process", f"Run kill {found.pid}."
    return ExitWith(
        CONFIGURATION,
        "broker_elsewhere",
        f"The broker at {found.url} runs {where}. {remedy} Nothing was changed.",
    )
