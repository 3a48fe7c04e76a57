"""`claudemesh reply`."""

from __future__ import annotations

from pathlib import Path

import click

from claudemesh.cli import answers
from claudemesh.cli.lookup import find_received
from claudemesh.cli.message_text import TextCommand, message_text, text_argument
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.cli.sent import print_sent
from claudemesh.client.local import LocalClient
from claudemesh.client.long_text import post_text
from claudemesh.runtime.destinations import spell_destination
from claudemesh.runtime.exits import USAGE, ExitWith


@click.command(cls=TextCommand)
@click.argument("id_or_seq", metavar="ID")
@text_argument
@mesh_option
@json_option
@answers.action(**answers.SENT)
def reply(
    id_or_seq: str, text: str | None, file: Path | None, allow_empty: bool, mesh: str | None, as_json: bool
) -> int:
    """Reply to a received message.

    ID is the number that `claudemesh inbox` shows, or any id of the message. The reply to a message of a
    topic goes to the topic. Every other reply goes to the sender, and to its session if it named one. The
    text is TEXT or the content of --file, or standard input when TEXT is `-`.

    \b
    Examples:
      claudemesh reply 17 'go ahead'
      git log -1 | claudemesh reply 17
    """
    client = LocalClient(mesh)
    item = find_received(client, id_or_seq)
    if item is None:
        missing = f"The inbox holds no message {id_or_seq}."
        raise ExitWith(USAGE, "not_found", missing, next="claudemesh inbox")
    # The reply to a message of a queue goes to its sender: the queue would deliver it to any worker.
    if item["kind"] == "topic":
        to = spell_destination("topic", item["topic"])
    else:
        session = item.get("from_session")
        to = f"{item['sender_pubkey']}/{session}" if session else item["sender_pubkey"]
    body = {
        "to": to,
        "message": message_text(text, file, allow_empty=allow_empty),
        "reply_to_id": item["broker_message_id"],
    }
    answer = post_text(client, "/v1/send", body)
    return print_sent(answer, mesh, as_json=as_json)
