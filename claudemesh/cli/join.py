"""`claudemesh join`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from claudemesh.cli import answers, output
from claudemesh.cli.next_commands import command, needed
from claudemesh.cli.options import ca_file_option, default_name, json_option
from claudemesh.client.local import LocalClient


@click.command()
@click.argument("link")
@click.option("--name", metavar="NAME", help="Name of this host in the mesh. Default: the host name.")
@click.option("--insecure", is_flag=True, help="Allow unencrypted ws:// to another machine.")
@ca_file_option
@json_option
@answers.action(**answers.MEMBERSHIP)
def join(link: str, name: str | None, insecure: bool, ca_file: Path | None, as_json: bool) -> int:
    """Join a mesh by an invite.

    LINK is the invite, or `-` to read it from standard input, where no other user of this machine sees it.
    Line ends and words around it, as mail programs add them, do no harm. A member that joins again keeps its
    name, its queued sends and its inbox, and dials the broker at the address in LINK.

    \b
    Examples:
      claudemesh join 'claudemesh://join/…' --name bob
      claudemesh join - <invite.txt
      claudemesh join - --ca-file our-ca.pem <invite.txt
    """
    from claudemesh.client.join import join as join_mesh
    from claudemesh.protocol.invites import MAX_PASTED_CHARACTERS

    if link == "-":
        link = sys.stdin.read(MAX_PASTED_CHARACTERS)
    joined = join_mesh(link, name, default_name(), insecure=insecure, ca_file=ca_file)
    slug = joined["slug"]
    words = ["restart"] if LocalClient(slug).is_running() else ["up", "-d"]
    text = f"joined mesh {slug} as {joined['name']}"
    return output.print_answer(as_json, joined, text, next=[command("daemon", *words, mesh=needed(slug))])
