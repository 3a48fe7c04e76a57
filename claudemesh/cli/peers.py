"""`claudemesh peers`."""

from __future__ import annotations

import click

from claudemesh.cli import output
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.cli.output import Column
from claudemesh.client.local import LocalClient


@click.command()
@mesh_option
@json_option
def peers(mesh: str | None, as_json: bool) -> None:
    """List the members of the mesh.

    \b
    Examples:
      claudemesh peers
      claudemesh peers --json | jq -r '.items[] | select(.online) | .name'
    """
    items = LocalClient(mesh).items("/v1/peers")
    if as_json:
        output.print_items(items)
        return
    columns = ("name", "role", "online", Column("last_seen", "age"), "status", Column("summary", "body"))
    names = ("name", "role", "online", "last_seen_at", "status", "summary")
    output.table(columns, [[item[name] for name in names] for item in items])
