"""`claudemesh invite`."""

from __future__ import annotations

import click

from claudemesh.cli import output
from claudemesh.cli.options import Duration, json_option, mesh_option
from claudemesh.client.broker import BrokerClient
from claudemesh.client.errors import ClientError
from claudemesh.client.meshes import choose_mesh
from claudemesh.runtime.clock import iso_ms


@click.group()
def invite() -> None:
    """Invites: how other hosts come in."""


@invite.command("create")
@click.option("--role", type=click.Choice(["member", "admin", "owner"]), default="member", show_default=True)
@click.option("--uses", type=click.IntRange(1, 10_000), default=1, show_default=True)
@click.option("--expires", type=Duration(), default="24h", show_default=True)
@mesh_option
@json_option
def create_invite(role: str, uses: int, expires: int, mesh: str | None, as_json: bool) -> None:
    """Print a link that lets another host join. It is signed here; the broker cannot forge one."""
    from claudemesh.client.join import make_invite

    made, link = make_invite(choose_mesh(mesh), role=role, uses=uses, expires_in_s=expires)
    try:
        BrokerClient(made.broker_url, insecure=True).register_invite(link)
    except ClientError as error:
        output.note(f"The broker does not know of this invite yet ({error.message}); it works all the same.")
    if as_json:
        output.print_json(
            {
                "invite": link,
                "invite_id": made.invite_id,
                "expires_at": iso_ms(made.expires_at_ms),
                "uses": uses,
                "role": role,
            }
        )
        return
    output.say(link)
