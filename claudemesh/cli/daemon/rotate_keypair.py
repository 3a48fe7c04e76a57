"""`claudemesh daemon rotate-keypair`."""

from __future__ import annotations

import click

from claudemesh.cli import answers, output
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.local import LocalClient


@click.command("rotate-keypair")
@mesh_option
@json_option
@answers.action("KeysRotated")
def rotate_keypair(mesh: str | None, as_json: bool) -> int:
    """Replace the keys of this host's member.

    The member, its name and its messages stay. Other hosts follow the new keys by a statement that the old
    key signs. Messages that were sealed to the old key are opened for 7 more days ([crypto]
    key_grace_period_days). The daemon must be connected to its broker. It is not restarted.

    Rotation does not help after a theft of the keys: then the member must be revoked.

    \b
    Examples:
      claudemesh daemon rotate-keypair
    """
    answer = LocalClient(mesh).post("/v1/keys/rotate", {})
    if answer["status"] == "pending":
        text = f"the broker has not confirmed the key {answer['pubkey']} yet; the daemon goes on by itself"
    else:
        text = f"the key is now {answer['pubkey']}"
    return output.print_answer(as_json, answer, text)
