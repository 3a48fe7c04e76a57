"""`claudemesh peers`."""

from __future__ import annotations

import click

from claudemesh.cli import output
from claudemesh.cli.options import json_option, mesh_option
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
    output.table(
        ("name", "role", "online", "status", "summary", "key"),
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
