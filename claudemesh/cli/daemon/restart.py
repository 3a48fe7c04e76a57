"""`claudemesh daemon restart`."""

from __future__ import annotations

import click

from claudemesh.cli import answers, output
from claudemesh.cli.daemon.background import start_in_background
from claudemesh.cli.daemon.restarting import stop_to_restart, was_with_broker
from claudemesh.cli.options import all_option, json_option, mesh_option, refuse_mesh_with_all
from claudemesh.client.local import LocalClient


@click.command()
@all_option("Restart the daemons of all meshes of this host that run.")
@mesh_option
@json_option
@answers.others("With --all: a list with mesh, state and detail of each mesh, and error where it failed.")
@answers.action(status="string", mesh="string", pid="integer*")
def restart(is_all: bool, mesh: str | None, as_json: bool) -> int:
    """Stop the daemon and start it again in the background.

    No accepted message is lost. The daemon starts with the options of its last start, also after a crash. A
    service of systemd is restarted by systemd. With wrong settings the daemon is not stopped.

    \b
    Examples:
      claudemesh daemon restart
      claudemesh daemon restart --all
    """
    if is_all:
        # Imported here: most calls are for one mesh.
        from claudemesh.cli.daemon.fleet import restart_all

        refuse_mesh_with_all(mesh)
        return restart_all(as_json)
    client = LocalClient(mesh)
    if stop_to_restart(client):
        answer = {"status": "running", "mesh": client.slug}
        return output.print_answer(as_json, answer, f"restarted the service of mesh {client.slug}")
    return start_in_background(client.slug, was_with_broker(client.slug), None, as_json)
