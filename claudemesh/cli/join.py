"""`claudemesh join`."""

from __future__ import annotations

import sys

import click

from claudemesh.cli import output
from claudemesh.cli.options import default_name, json_option


@click.command()
@click.argument("link")
@click.option("--name", metavar="NAME", help="This host's name in the mesh; its host name by default.")
@click.option("--insecure", is_flag=True, help="Allow ws:// to another machine.")
@json_option
def join(link: str, name: str | None, insecure: bool, as_json: bool) -> None:
    """Join a mesh by an invite LINK, or by one on stdin (-), which no other user of this machine can see.

    A member that its broker has forgotten joins again with a new invite, and keeps its queues and its inbox.
    """
    from claudemesh.client.join import join as join_mesh
    from claudemesh.protocol.invites import MAX_LINK_CHARACTERS

    if link == "-":
        link = sys.stdin.read(MAX_LINK_CHARACTERS)
    joined = join_mesh(link.strip(), name, default_name(), insecure=insecure)
    if as_json:
        output.print_json(joined)
        return
    output.say(f"joined mesh {joined['slug']} as {joined['name']}")
    output.note("Next: claudemesh daemon up -d.")
