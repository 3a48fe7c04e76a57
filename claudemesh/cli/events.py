"""`claudemesh events`."""

from __future__ import annotations

import click

from claudemesh.cli import output
from claudemesh.cli.follower import following
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.local import LocalClient


@click.command()
@click.option("--since", type=click.IntRange(min=0), metavar="SEQ", help="Replay messages after this one.")
@mesh_option
@json_option
def events(since: int | None, mesh: str | None, as_json: bool) -> None:
    """Follow what happens, one JSON line each, over restarts of the daemon too.

    Messages are complete over a restart. Other events, such as peer_join, are not kept while nobody listens.
    """
    with following(LocalClient(mesh)) as follow:
        for event in follow.daemon.events(since):
            output.print_json({"event": event.event, "data": event.data})
