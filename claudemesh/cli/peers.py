"""`claudemesh peers`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from claudemesh.cli import answers, output
from claudemesh.cli.command_group import CommandGroup
from claudemesh.cli.lookup import note_without_link
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.local import LocalClient


@click.group(cls=CommandGroup, invoke_without_command=True)
@mesh_option
@json_option
@answers.items("PeerItem")
@click.pass_context
def peers(context: click.Context, mesh: str | None, as_json: bool) -> None:
    """List the members of the mesh.

    \b
    Examples:
      claudemesh peers
      claudemesh peers --json | jq -r '.items[] | select(.online) | .name'
      claudemesh peers accept bob
    """
    if context.invoked_subcommand is not None:
        return
    client = LocalClient(mesh)
    items = client.items("/v1/peers")
    note_without_link(client, items)
    if as_json:
        output.print_items(items)
        return
    columns = ("name", "role", "online", "verified", "last_seen_at", "sessions", "status", "summary")
    rows = [{**item, "sessions": _sessions(item)} for item in items]
    output.table(columns, [[row[name] for name in columns] for row in rows])
    for item in items:
        if item.get("name_is_pinned_to_another"):
            name = output.safe(item["name"])
            output.note(
                f"{name} is another member than the one that this host knew by this name. Sends to the name "
                f"are refused. If it is the right one: claudemesh peers accept {name}"
            )


def _sessions(item: Mapping[str, Any]) -> str:
    return ", ".join(f"{one['name']} ({one['state']})" for one in item.get("sessions", ()))


@peers.command()
@click.argument("name")
@mesh_option
@json_option
@answers.action("MemberChanged")
def accept(name: str, mesh: str | None, as_json: bool) -> int:
    """Accept that a name belongs to another member now.

    This host knew another member by NAME, and refuses sends to it until then. First ask that member, not
    through this mesh, whether it is the right one.

    \b
    Examples:
      claudemesh peers accept bob
    """
    answer = LocalClient(mesh).post("/v1/peers/accept", {"name": name.removeprefix("@")})
    shown = output.safe(answer["name"])
    return output.print_answer(as_json, answer, f"{shown} is the member with the key {answer['pubkey']} now")
