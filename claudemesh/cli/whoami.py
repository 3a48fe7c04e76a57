"""`claudemesh whoami`."""

from __future__ import annotations

import click

from claudemesh.cli import answers, output
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.local import LocalClient


@click.command()
@mesh_option
@json_option
@answers.one("Whoami")
def whoami(mesh: str | None, as_json: bool) -> None:
    """Show this host's member: name, mesh, role and key.

    To verify the key, another member compares it with the output of `claudemesh peers --json` on its host.

    \b
    Examples:
      claudemesh whoami
      claudemesh whoami --json | jq -r .name
    """
    member = LocalClient(mesh).get("/v1/whoami")
    if as_json:
        output.print_json(member)
        return
    output.fields(
        {
            "name": member["name"],
            "mesh": member["mesh"],
            "role": member["role"],
            "member id": member["member_id"],
            "key": member["member_pubkey"],
            "host": member["host"],
            "broker": f"{member['broker_url']} ({'connected' if member['connected'] else 'not connected'})",
        }
    )
