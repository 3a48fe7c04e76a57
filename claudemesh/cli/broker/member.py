"""`claudemesh broker member`."""

from __future__ import annotations

from typing import Any

import click

from claudemesh.cli import answers, output
from claudemesh.cli.broker.admin import AdminClient, admin_options, print_list
from claudemesh.cli.command_group import CommandGroup
from claudemesh.cli.options import json_option
from claudemesh.client.errors import ApiError


@click.group(cls=CommandGroup)
def member() -> None:
    """List and revoke members.

    \b
    Examples:
      claudemesh broker member list team
    """


@member.command("list")
@click.argument("slug")
@admin_options
@json_option
@answers.items(
    member_id="string",
    name="string",
    role="string",
    status="string",
    online="boolean",
    pubkey="string",
    ephemeral="boolean",
    last_seen_at="time?",
    owed="integer*",
)
def list_members(slug: str, as_json: bool, **which: Any) -> None:
    """List the members of a mesh.

    Members that have left or are revoked are listed too. In JSON, `owed` is the number of deliveries that
    wait for a member, counted up to 1000.

    \b
    Examples:
      claudemesh broker member list team
    """
    columns = ("name", "role", "status", "online", "last_seen_at", "member_id")
    print_list(AdminClient(**which), as_json, "members", columns, mesh=slug)


@member.command("revoke")
@click.argument("slug")
@click.argument("who", metavar="NAME|KEY")
@admin_options
@json_option
@answers.action(member_id="string", name="string", status="string")
def revoke_member(slug: str, who: str, as_json: bool, **which: Any) -> int:
    """Revoke a member. Its connections end, and its daemon exits with code 77.

    Messages that it has sent stay.

    \b
    Examples:
      claudemesh broker member revoke team bob
    """
    client = AdminClient(**which)
    try:
        answer = client.post("members/revoke", {"mesh": slug, "member": who}, "name")
    except ApiError as error:
        raise client.about_member(slug, who, error) from error
    return output.print_answer(as_json, answer, f"revoked {output.safe(answer['name'])}")
