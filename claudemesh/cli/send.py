"""`claudemesh send`."""

from __future__ import annotations

from typing import Any

import click
import orjson

from claudemesh.cli.message_text import TextCommand, message_text, text_argument
from claudemesh.cli.options import complete_members, json_option, mesh_option
from claudemesh.cli.sent import print_sent
from claudemesh.client.local import LocalClient


@click.command(cls=TextCommand)
@click.argument("to", shell_complete=complete_members)
@text_argument
@click.option("--priority", type=click.Choice(["now", "next", "low"]), help="Urgency. Default: next.")
@click.option("--meta", metavar="JSON", help="A JSON object that travels with the message.")
@click.option("--reply-to", metavar="ID", help="The broker_message_id of the message that this one answers.")
@click.option(
    "--mention",
    "mentions",
    multiple=True,
    metavar="NAME",
    help="Name or key of a member to mention. May be repeated.",
)
@click.option(
    "--id",
    "client_message_id",
    metavar="ID",
    help="Your own client_message_id. Repeated sends with the same id arrive once.",
)
@click.option(
    "--wait",
    type=click.IntRange(0, 30000),
    metavar="MS",
    help="Wait up to this many milliseconds for the broker to accept the message.",
)
@mesh_option
@json_option
def send(
    to: str,
    text: str | None,
    allow_empty: bool,
    priority: str | None,
    meta: str | None,
    reply_to: str | None,
    mentions: tuple[str, ...],
    client_message_id: str | None,
    wait: int | None,
    mesh: str | None,
    as_json: bool,
) -> int:
    """Send a message to a member, a topic or a queue.

    TO is a member's name or public key, #TOPIC or queue:NAME. The text is TEXT, or standard input when TEXT
    is missing or `-`. Exit code 0 means that the message is on this host's disk and will be delivered.

    \b
    Examples:
      claudemesh send alice 'the build is green'
      git log -1 | claudemesh send alice -
      claudemesh send '#all' 'deploying' --priority now
      claudemesh send alice 'v42 is out' --id deploy-42
      claudemesh send alice -- -v
    """
    body: dict[str, Any] = {
        "to": to,
        "message": message_text(text, allow_empty=allow_empty),
        "priority": priority,
        "reply_to_id": reply_to,
        "client_message_id": client_message_id,
        "mentions": list(mentions) or None,
        "meta": None if meta is None else _meta(meta),
    }
    given = {name: value for name, value in body.items() if value is not None}
    path = "/v1/send" if wait is None else f"/v1/send?wait_ms={wait}"
    answer = LocalClient(mesh).post(path, given)
    return print_sent(answer, mesh, as_json=as_json)


def _meta(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise click.UsageError(f"--meta is not JSON: {error}.") from error
