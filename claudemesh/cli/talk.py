"""`claudemesh wait`, `reply` and `ping`: for scripts that talk."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import click

from claudemesh.cli import output
from claudemesh.cli.options import Duration, complete_members, json_option, mesh_option
from claudemesh.cli.send import message_text
from claudemesh.client.errors import ApiError, ClientError, DaemonNotRunning
from claudemesh.client.local import LocalClient
from claudemesh.runtime.destinations import spell_destination
from claudemesh.runtime.exits import TEMPORARY, UNAVAILABLE, USAGE, ExitWith

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
    return any(peer["online"] for peer in client.items("/v1/peers") if _is_called(peer, name))


def _is_called(peer: dict[str, Any], name: str) -> bool:
    wanted = name.removeprefix("@").lower()
    return wanted in (peer["name"].lower(), peer["pubkey"])


def _has_message(client: LocalClient, message_id: str) -> bool:
    try:
        row = client.get(f"/v1/outbox/{quote(message_id, safe='')}")
    except ApiError as error:
        if error.status != 404:
            raise
        return _find_received(client, message_id) is not None
    if row["status"] in ("dead", "aborted"):
        text = f"{message_id} is {row['status']}: {row['last_error']}."
        raise ExitWith(UNAVAILABLE, f"outbox_{row['status']}", text)
    return bool(row["status"] == "done")


def _find_received(client: LocalClient, message_id: str) -> dict[str, Any] | None:
    try:
        return client.get(f"/v1/inbox/{quote(message_id, safe='')}")
    except ApiError as error:
        if error.status != 404:
            raise
        return None


@click.command()
@click.argument("message_id", metavar="ID")
@click.argument("text", required=False)
@mesh_option
@json_option
def reply(message_id: str, text: str | None, mesh: str | None, as_json: bool) -> int:
    """Answer a received message, by its seq or any of its ids, where it came from."""
    client = LocalClient(mesh)
    item = _find_received(client, message_id)
    if item is None:
        text = f"No message {message_id} is in the inbox: see `claudemesh inbox`."
        raise ExitWith(USAGE, "not_found", text)
    # A job from a queue is answered to the member that gave it out.
    to = spell_destination("topic", item["topic"]) if item["kind"] == "topic" else item["sender_pubkey"]
    body = {"to": to, "message": message_text(text), "reply_to_id": item["broker_message_id"]}
    answer = client.post("/v1/send", body)
    return output.tell(as_json, answer, f"{answer['status']} {answer['client_message_id']}")


@click.command()
@click.argument("name", shell_complete=complete_members)
@mesh_option
@json_option
def ping(name: str, mesh: str | None, as_json: bool) -> int:
    """See whether a peer is here, and how far the broker is; exit 69 when it is not."""
    client = LocalClient(mesh)
    health = client.get("/v1/health")
    peer = next((peer for peer in client.items("/v1/peers") if _is_called(peer, name)), None)
    if peer is None:
        text = f"Nobody here is called {name}: see `claudemesh peers`."
        raise ExitWith(USAGE, "destination_not_found", text)
    if not health["connected"]:
        raise ClientError("broker_unavailable", f"The broker cannot be reached: {health['last_error']}.")
    answer = {
        "name": peer["name"],
        "online": peer["online"],
        "last_seen_at": peer["last_seen_at"],
        "broker_ms": health["lag_ms"],
    }
    seen = "here" if peer["online"] else f"not here, last seen {peer['last_seen_at'] or 'never'}"
    lag = "" if health["lag_ms"] is None else f"  (broker {health['lag_ms']} ms)"
    output.tell(as_json, answer, f"{peer['name']}: {seen}{lag}")
    return 0 if peer["online"] else UNAVAILABLE
