"""`claudemesh broker invite`."""

from __future__ import annotations

from typing import Any

import click

from claudemesh.cli import output
from claudemesh.cli.broker.admin import AdminClient, admin_options, print_list
from claudemesh.cli.options import json_option


@click.group()
def invite() -> None:
    """The invites of a mesh; `claudemesh invite create` makes one."""


@invite.command("list")
@click.argument("slug")
@admin_options
@json_option
def list_invites(slug: str, as_json: bool, **which: Any) -> None:
    """List the invites that this broker has heard of."""
    columns = ("invite_id", "role", "uses", "max_uses", "expires_at", "revoked_at")
    print_list(AdminClient(**which), as_json, "invites", columns, mesh=slug)


@invite.command("revoke")
@click.argument("slug")
@click.argument("invite_id", metavar="ID")
@admin_options
@json_option
def revoke_invite(slug: str, invite_id: str, as_json: bool, **which: Any) -> int:
    """Let nobody join by an invite any more."""
    answer = AdminClient(**which).post("invites/revoke", {"mesh": slug, "invite_id": invite_id})
    return output.tell(as_json, answer, f"revoked {invite_id}")
