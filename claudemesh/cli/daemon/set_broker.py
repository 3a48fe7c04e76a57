"""`claudemesh daemon set-broker`."""

from __future__ import annotations

from pathlib import Path

import click

from claudemesh.cli import answers, output
from claudemesh.cli.next_commands import command
from claudemesh.cli.options import ca_file_option, json_option, mesh_option
from claudemesh.client.local import LocalClient
from claudemesh.client.meshes import choose_mesh


@click.command("set-broker")
@click.argument("url", metavar="URL")
@click.option("--insecure", is_flag=True, help="Allow unencrypted ws:// to another machine.")
@ca_file_option
@mesh_option
@json_option
@answers.action(**answers.MEMBERSHIP)
def set_broker(url: str, insecure: bool, ca_file: Path | None, mesh: str | None, as_json: bool) -> int:
    """Change the address of the mesh's broker. The daemon uses it from its next start on.

    The broker must answer at URL and know it as one of its own addresses (`broker up --public-url`). Keys,
    queues and inbox stay. With --ca-file the certificate of the authority is replaced too.

    \b
    Examples:
      claudemesh daemon set-broker wss://mesh.example.org
      claudemesh daemon restart
    """
    # Imported here: keys need the crypto library, and most commands do not.
    from claudemesh.client.join import set_broker as write_broker

    slug = choose_mesh(mesh)
    changed = write_broker(slug, url, insecure=insecure, ca_file=ca_file)
    words = ["restart"] if LocalClient(slug).is_running() else ["up", "-d"]
    text = f"the broker of mesh {slug} is {changed['broker_url']}"
    return output.print_answer(as_json, changed, text, next=[command("daemon", *words, mesh=mesh)])
