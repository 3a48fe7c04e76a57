"""`claudemesh events`."""

from __future__ import annotations

import click

from claudemesh.cli import output
from claudemesh.cli.follower import following
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.local import LocalClient


@click.command()
@click.option(
    "--since", type=click.IntRange(min=0), metavar="SEQ", help="Begin with the messages after this number."
)
@mesh_option
@json_option
def events(since: int | None, mesh: str | None, as_json: bool) -> None:
    """Print each event as a line of JSON as it happens.

    The command continues over a restart of the daemon. No event of type message is missed then. Other events,
    such as peer_join, are not stored, and are missed while the daemon is away.

    \b
    Examples:
      claudemesh events | jq -c 'select(.event == "peer_join")'
    """
    with following(LocalClient(mesh)) as follow:
        for event in follow.daemon.events(since):
            output.print_json({"event": event.event, "data": event.data})
