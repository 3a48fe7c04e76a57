"""`claudemesh send`."""

from __future__ import annotations

from typing import Any

import click
import orjson

from claudemesh.cli import output
from claudemesh.cli.message_text import message_text
from claudemesh.cli.options import complete_members, json_option, mesh_option
from claudemesh.client.local import LocalClient


@click.command()
@click.argument("to", shell_complete=complete_members)
@click.argument("text", required=False)
@click.option("--priority", type=click.Choice(["now", "next", "low"]), help="How urgent; next by default.")
@click.option("--meta", metavar="JSON", help="An object that travels with the message.")
@click.option("--reply-to", metavar="ID", help="The broker_message_id that this answers.")
@click.option("--mention", "mentions", multiple=True, metavar="NAME", help="Who is meant; may be repeated.")
@click.option("--id", "message_id", metavar="ID", help="Your own id; sending it again is free.")
@click.option("--wait", type=click.IntRange(0, 30000), metavar="MS", help="Wait for the broker's word.")
@mesh_option
@json_option
def send(
    to: str,
    text: str | None,
    priority: str | None,
    meta: str | None,
    reply_to: str | None,
    mentions: tuple[str, ...],
    message_id: str | None,
    wait: int | None,
    mesh: str | None,
    as_json: bool,
) -> None:
    """Send TEXT, or what comes on stdin, to a member, a key, `#topic` or `queue:name`.

    \b
    claudemesh send alice 'the build is green'
    git log -1 | claudemesh send alice -
    claudemesh send '#all' 'deploying' --priority now
    claudemesh send alice 'once' --id deploy-42      again and again, arrives once
    """
    body: dict[str, Any] = {
        "to": to,
        "message": message_text(text),
        "priority": priority,
        "reply_to_id": reply_to,
        "client_message_id": message_id,
        "mentions": list(mentions) or None,
        "meta": None if meta is None else _meta(meta),
    }
    given = {name: value for name, value in body.items() if value is not None}
    path = "/v1/send" if wait is None else f"/v1/send?wait_ms={wait}"
    answer = LocalClient(mesh).post(path, given)
    if as_json:
        output.print_json(answer)
    else:
        output.say(f"{answer['status']} {answer['client_message_id']}")


def _meta(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise click.UsageError(f"--meta is not JSON: {error}.") from error
