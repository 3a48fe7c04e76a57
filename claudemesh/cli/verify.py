"""`claudemesh verify`."""

from __future__ import annotations

import click

from claudemesh.cli import answers, output
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.local import LocalClient


@click.command()
@click.argument("name")
@click.option("--confirm", is_flag=True, help="Mark the member as verified: the digits are the same.")
@mesh_option
@json_option
@answers.one("PeerVerified")
def verify(name: str, confirm: bool, mesh: str | None, as_json: bool) -> None:
    """Show digits by which two people verify each other's keys.

    Run it on both hosts, each with the name of the other, and compare the 12 digits over another channel,
    such as a telephone. When they are the same, no broker has exchanged a key: run it again with --confirm.

    The mark stays when the member rotates its keys. It ends when another member takes the name.

    \b
    Examples:
      claudemesh verify bob
      claudemesh verify bob --confirm
    """
    body = {"member": name, "confirm": confirm}
    answer = LocalClient(mesh).post("/v1/peers/verify", body)
    if as_json:
        output.print_json(answer)
        return
    shown = output.safe(answer["name"])
    click.echo(answer["digits"])
    if answer["verified"]:
        output.note(f"{shown} is verified.")
    else:
        output.note(
            f"{shown} is not verified. If `claudemesh verify` on its host shows the same digits: "
            f"claudemesh verify {shown} --confirm"
        )
