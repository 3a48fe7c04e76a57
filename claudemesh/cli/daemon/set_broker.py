"""`claudemesh daemon set-broker`: the address at which a mesh's broker is dialled."""

from __future__ import annotations

import click

from claudemesh.cli import output
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.local import LocalClient
from claudemesh.client.meshes import choose_mesh


@click.command("set-broker")
@click.argument("url", metavar="URL")
@click.option("--insecure", is_flag=True, help="Allow ws:// to another machine.")
@mesh_option
@json_option
def set_broker(url: str, insecure: bool, mesh: str | None, as_json: bool) -> None:
    """Dial the mesh's broker at URL from the next start of the daemon on.

    The broker has to answer there, and to know the address for its own. Keys, queues and inbox stay.

    \b
    claudemesh daemon set-broker wss://mesh.example.org
    claudemesh daemon restart
    """
    # Imported here: keys need the crypto library, and most commands do not.
    from claudemesh.client.join import set_broker as write_broker

    slug = choose_mesh(mesh)
    changed = write_broker(slug, url, insecure=insecure)
    if as_json:
        output.print_json(changed)
        return
    output.say(f"mesh {slug} dials its broker at {changed['broker_url']}")
    is_running = LocalClient(slug).is_running()
    output.note(f"Next: claudemesh daemon {'restart' if is_running else 'up -d'}.")
