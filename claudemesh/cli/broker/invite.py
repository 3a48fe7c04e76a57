"""`claudemesh broker invite`."""

from __future__ import annotations

from typing import Any

import click

from claudemesh.cli import answers, output
from claudemesh.cli.broker.admin import AdminClient, admin_options, print_list
from claudemesh.cli.command_group import CommandGroup
from claudemesh.cli.options import json_option
from claudemesh.client.errors import ApiError


@click.group(cls=CommandGroup)
def invite() -> None:
    """List and revoke invites. `claudemesh invite create` creates an invite.

    \b
    Examples:
      claudemesh broker invite list team
    """


@invite.command("list")
@click.argument("slug")
@admin_options
@json_option
@answers.items(
    invite_id="string",
    role="string",
    created_by="string",
    expires_at="time",
    uses="integer",
    max_uses="integer",
    revoked_at="time?",
)
def list_invites(slug: str, as_json: bool, **which: Any) -> None:
    """List the invites that are registered at the broker.

    \b
    Examples:
      claudemesh broker invite list team
    """
    columns = ("invite_id", "role", "uses", "max_uses", "expires_at", "revoked_at")
    print_list(AdminClient(**which), as_json, "invites", columns, mesh=slug)


@invite.command("revoke")
@click.argument("slug")
@click.argument("invite_id", metavar="ID")
@admin_options
@json_option
@answers.action(invite_id="string", status="string")
def revoke_invite(slug: str, invite_id: str, as_json: bool, **which: Any) -> int:
    """Revoke an invite. No host can join by it any more.

    \b
    Examples:
      claudemesh broker invite revoke team 01JV0000000000000000000000
    """
    client = AdminClient(**which)
    try:
        answer = client.post("invites/revoke", {"mesh": slug, "invite_id": invite_id})
    except ApiError as error:
        raise client.about_mesh(slug, error) from error
    return output.print_answer(as_json, answer, f"revoked {invite_id}")
