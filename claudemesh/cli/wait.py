"""`claudemesh wait`."""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import quote

import click

from claudemesh.cli import answers, output
from claudemesh.cli.lookup import find_peer, find_received
from claudemesh.cli.options import Duration, json_option, mesh_option
from claudemesh.cli.progress import WAITED_FOR, wait_for_state
from claudemesh.client.errors import ApiError, DaemonNotRunning
from claudemesh.client.local import LocalClient
from claudemesh.runtime.exits import TEMPORARY, UNAVAILABLE, ExitWith

_POLL_S = 0.1


@click.command("wait")
@click.option(
    "--for", "condition", required=True, metavar="CONDITION", help="online, peer=NAME or message=ID."
)
@click.option(
    "--state",
    type=click.Choice(WAITED_FOR),
    help="With message=ID of a send: wait until it has come so far. Default: accepted.",
)
@click.option(
    "--timeout", type=Duration(), default="60s", show_default=True, help="Time limit, such as 30s or 10m."
)
@mesh_option
@json_option
@answers.exits({75: "The condition does not hold in time."})
@answers.action(status="string", **{"for": "string"})
def wait(condition: str, state: str | None, timeout: int, mesh: str | None, as_json: bool) -> int:
    """Wait for the link, a member or a message. The exit code is 75 when the time is up.

    \b
    Conditions:
      online        the daemon is connected to the broker
      peer=NAME     the member is online
      message=ID    a send is accepted by the broker, or has come to --state;
                    or a message is received

    \b
    Examples:
      claudemesh wait --for online
      claudemesh wait --for peer=alice --timeout 10m
      claudemesh wait --for message=deploy-42
      claudemesh wait --for message=deploy-42 --state shown --timeout 10m
    """
    kind, _, name = condition.partition("=")
    client = LocalClient(mesh)
    conditions: dict[str, Callable[[], bool]] = {
        "online": lambda: client.get("/v1/health")["connected"],
        "peer": lambda: _is_online(client, name),
        "message": lambda: _has_message(client, name),
    }
    if kind not in conditions or (kind != "online" and not name):
        raise click.UsageError("--for takes online, peer=NAME or message=ID.")
    if state is not None:
        if kind != "message":
            raise click.UsageError("--state goes with --for message=ID.")
        row = wait_for_state(client, name, state, timeout)
        return output.print_answer(as_json, {"status": "ok", "for": condition}, row["detail"])
    deadline = time.monotonic() + timeout
    while not _holds(conditions[kind]):
        if time.monotonic() > deadline:
            text = f"The condition {condition} does not hold after {timeout} s."
            raise ExitWith(TEMPORARY, "timeout", text)
        time.sleep(_POLL_S)
    return output.print_answer(as_json, {"status": "ok", "for": condition}, f"{condition}: yes")


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except DaemonNotRunning as error:
        if not error.may_start:
            raise
        return False


def _is_online(client: LocalClient, name: str) -> bool:
    peer = find_peer(client, name)
    return peer is not None and bool(peer["online"])


def _has_message(client: LocalClient, any_id: str) -> bool:
    try:
        row = client.get(f"/v1/outbox/{quote(any_id, safe='')}")
    except ApiError as error:
        if error.status != 404:
            raise
        return find_received(client, any_id) is not None
    if row["status"] in ("dead", "aborted"):
        text = f"The send {any_id} is {row['status']}: {row['last_error']}."
        inspect = f"claudemesh daemon outbox inspect {any_id}"
        raise ExitWith(UNAVAILABLE, f"outbox_{row['status']}", text, next=inspect)
    return bool(row["status"] == "done")
