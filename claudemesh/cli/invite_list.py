"""`claudemesh invite list` and `claudemesh invite revoke`."""

from __future__ import annotations

import click

from claudemesh.cli import answers, output
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.errors import WrongUse
from claudemesh.client.local import LocalClient


@click.command("list")
@mesh_option
@json_option
@answers.items("InviteItem")
def list_invites(mesh: str | None, as_json: bool) -> None:
    """List the invites of the mesh. Owners and admins may do that.

    The list has the invites that are registered at the broker, the oldest first. It has no links: a link is
    shown once, when it is made.

    \b
    Examples:
      claudemesh invite list
    """
    items = LocalClient(mesh).items("/v1/invites")
    if as_json:
        output.print_items(items)
        return
    columns = (
        "invite_id",
        "role",
        "created_by",
        "uses",
        "expires_at",
        "revoked_at",
    )
    rows = [
        (
            item["invite_id"],
            item["role"],
            item["created_by"],
            f"{item['uses']} of {item['max_uses']}" if item["max_uses"] else item["uses"],
            item["expires_at"],
            item["revoked_at"],
        )
        for item in items
    ]
    output.table(columns, rows)


@click.command("revoke")
@click.argument("ids", nargs=-1, required=True, metavar="ID|LINK...")
@mesh_option
@json_option
@answers.action(status="string", invite_ids="array")
def revoke_invite(ids: tuple[str, ...], mesh: str | None, as_json: bool) -> int:
    """Revoke invites. Owners and admins may do that, and no host can join by them any more.

    ID is the id that `claudemesh invite list` shows. The link of the invite works too. Hosts that have joined
    by it stay in the mesh.

    \b
    Examples:
      claudemesh invite revoke 01JV0000000000000000000000
    """
    client = LocalClient(mesh)
    revoked = [
        client.post("/v1/invites/revoke", {"invite_id": invite_id})["invite_id"]
        for invite_id in [_id_of(one) for one in ids]
    ]
    answer = {"status": "revoked", "invite_ids": revoked}
    return output.print_answer(as_json, answer, "\n".join(f"revoked {one}" for one in revoked))


def _id_of(given: str) -> str:
    """Return the id of an invite, from its link too. `ProtocolError` for anything else."""
    # Imported here: parsers need the protocol, and most commands do not.
    from claudemesh.protocol.ids import ULID
    from claudemesh.protocol.invites import find_link, parse_link

    if "://" in given:
        return parse_link(find_link(given)).invite_id
    if ULID.fullmatch(given.upper()) is None:
        text = f"{given!r} is no id of an invite, which has 26 letters and digits."
        raise WrongUse("invalid_invite_id", text, next="claudemesh invite list")
    return given.upper()
