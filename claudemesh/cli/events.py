"""`claudemesh events`."""

from __future__ import annotations

import click

from claudemesh.cli import answers, output
from claudemesh.cli.follower import following
from claudemesh.cli.lookup import find_received
from claudemesh.cli.message_filter import MessageFilter
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.local import LocalClient
from claudemesh.runtime.exits import USAGE, ExitWith
from claudemesh.sdk import Event

_MOST_DIGITS = 18


@click.command()
@click.option(
    "--since", type=click.IntRange(min=0), metavar="SEQ", help="Begin with the messages after this number."
)
@click.option(
    "--after", metavar="ID", help="Begin with the messages after this one: its number or any of its ids."
)
@click.option("--from", "sender", metavar="NAME", help="Only messages from this member.")
@click.option("--topic", metavar="NAME", help="Only messages of this topic or queue.")
@mesh_option
@json_option
@answers.lines(event="string", data="object")
def events(
    since: int | None,
    after: str | None,
    sender: str | None,
    topic: str | None,
    mesh: str | None,
    as_json: bool,
) -> None:
    """Print each event as a line of JSON as it happens.

    With --from or --topic only events of type message are printed. The command continues over a restart of
    the daemon. No event of type message is missed then. Other events, such as peer_join, are not stored, and
    are missed while the daemon is away.

    \b
    Examples:
      claudemesh events | jq -c 'select(.event == "peer_join")'
      claudemesh events --from alice --topic deploys --after 17
    """
    if since is not None and after is not None:
        raise click.UsageError("Give --since or --after, not both.")
    client = LocalClient(mesh)
    wanted = MessageFilter(sender=sender, topic=topic)
    start = since if after is None else _position_of(client, after)
    with following(client) as follow:
        for event in follow.daemon.events(start):
            if _is_wanted(event, wanted):
                output.print_json({"event": event.event, "data": event.data})


def _is_wanted(event: Event, wanted: MessageFilter) -> bool:
    return wanted.is_empty or (event.event == "message" and wanted.holds(event.data))


def _position_of(client: LocalClient, id_or_seq: str) -> int:
    if id_or_seq.isascii() and id_or_seq.isdigit() and len(id_or_seq) <= _MOST_DIGITS:
        # A position is valid although its message is pruned.
        return int(id_or_seq)
    item = find_received(client, id_or_seq)
    if item is None:
        missing = f"The inbox holds no message {id_or_seq}."
        raise ExitWith(USAGE, "not_found", missing, next="claudemesh inbox")
    seq: int = item["seq"]
    return seq
