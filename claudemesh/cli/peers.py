"""`claudemesh peers` and `claudemesh events`."""

from __future__ import annotations

import click

from claudemesh.cli import output
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.local import LocalClient


@click.command()
@mesh_option
@json_option
def peers(mesh: str | None, as_json: bool) -> None:
    """List the members of the mesh and who is here."""
    items = LocalClient(mesh).items("/v1/peers")
    if as_json:
        output.print_json({"items": items, "next": None})
        return
    output.table(
        ("name", "role", "here", "status", "summary", "key"),
        [
            (
                item["name"],
                item["role"],
                "yes" if item["online"] else "no",
                item["status"],
                item["summary"],
                item["pubkey"][:16],
            )
            for item in items
        ],
    )


@click.command()
@click.option("--since", type=click.IntRange(min=0), metavar="SEQ", help="Replay messages after this one.")
@mesh_option
@json_option
def events(since: int | None, mesh: str | None, as_json: bool) -> None:
    """Follow what happens, one JSON line each, until the daemon stops."""
    path = "/v1/events" if since is None else f"/v1/events?since={since}"
    for event, data in LocalClient(mesh).stream(path):
        output.print_json({"event": event, "data": data})
