"""`claudemesh wait`."""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import quote

import click

from claudemesh.cli import output
from claudemesh.cli.lookup import find_peer, find_received
from claudemesh.cli.options import Duration, json_option, mesh_option
from claudemesh.client.errors import ApiError, DaemonNotRunning
from claudemesh.client.local import LocalClient
from claudemesh.runtime.exits import TEMPORARY, UNAVAILABLE, ExitWith

_POLL_S = 0.1


@click.command("wait")
@click.option("--for", "what", required=True, metavar="online|peer=NAME|message=ID")
@click.option("--timeout", type=Duration(), default="60s", show_default=True)
@mesh_option
@json_option
def wait(what: str, timeout: int, mesh: str | None, as_json: bool) -> int:
    """Wait until something is so: exit 0 when it is, 75 when the time is up.

    \b
    claudemesh wait --for online                 the link to the broker is up
    claudemesh wait --for peer=alice             alice is here
    claudemesh wait --for message=deploy-42      the broker has accepted this send, or it has arrived here
    """
    kind, _, name = what.partition("=")
    client = LocalClient(mesh)
    conditions: dict[str, Callable[[], bool]] = {
        "online": lambda: client.get("/v1/health")["connected"],
        "peer": lambda: _is_online(client, name),
        "message": lambda: _has_message(client, name),
    }
    if kind not in conditions or (kind != "online" and not name):
        raise click.UsageError("--for takes online, peer=NAME or message=ID.")
    deadline = time.monotonic() + timeout
    while not _holds(conditions[kind]):
        if time.monotonic() > deadline:
            raise ExitWith(TEMPORARY, "timeout", f"Not within {timeout} s: {what}.")
        time.sleep(_POLL_S)
    return output.tell(as_json, {"status": "ok", "for": what}, f"{what}: yes")


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except DaemonNotRunning:
        return False  # it may be on its way


def _is_online(client: LocalClient, name: str) -> bool:
    peer = find_peer(client, name)
    return peer is not None and bool(peer["online"])


def _has_message(client: LocalClient, message_id: str) -> bool:
    try:
        row = client.get(f"/v1/outbox/{quote(message_id, safe='')}")
    except ApiError as error:
        if error.status != 404:
            raise
        return find_received(client, message_id) is not None
    if row["status"] in ("dead", "aborted"):
        text = f"{message_id} is {row['status']}: {row['last_error']}."
        raise ExitWith(UNAVAILABLE, f"outbox_{row['status']}", text)
    return bool(row["status"] == "done")
