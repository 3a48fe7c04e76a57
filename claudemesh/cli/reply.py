"""`claudemesh reply`."""

from __future__ import annotations

import click

from claudemesh.cli import output
from claudemesh.cli.lookup import find_received
from claudemesh.cli.message_text import message_text
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.local import LocalClient
from claudemesh.runtime.destinations import spell_destination
from claudemesh.runtime.exits import USAGE, ExitWith


@click.command()
@click.argument("message_id", metavar="ID")
@click.argument("text", required=False)
@mesh_option
@json_option
def reply(message_id: str, text: str | None, mesh: str | None, as_json: bool) -> int:
    """Answer a received message, by its seq or any of its ids, where it came from."""
    client = LocalClient(mesh)
    item = find_received(client, message_id)
    if item is None:
        text = f"No message {message_id} is in the inbox: see `claudemesh inbox`."
        raise ExitWith(USAGE, "not_found", text)
    # A job from a queue is answered to the member that gave it out.
    to = spell_destination("topic", item["topic"]) if item["kind"] == "topic" else item["sender_pubkey"]
    body = {"to": to, "message": message_text(text), "reply_to_id": item["broker_message_id"]}
    answer = client.post("/v1/send", body)
    return output.tell(as_json, answer, f"{answer['status']} {answer['client_message_id']}")
