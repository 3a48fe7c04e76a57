"""`claudemesh daemon down`."""

from __future__ import annotations

import click

from claudemesh.cli import answers, output
from claudemesh.cli.daemon.control import stop
from claudemesh.cli.options import all_option, json_option, mesh_option, refuse_mesh_with_all
from claudemesh.client.errors import DaemonNotRunning
from claudemesh.client.local import LocalClient


@click.command()
@all_option("Stop the daemons of all meshes of this host.")
@mesh_option
@json_option
@answers.others("With --all: a list with mesh, state and detail of each mesh, and error where it failed.")
@answers.action(status="string", mesh="string")
def down(is_all: bool, mesh: str | None, as_json: bool) -> int:
    """Stop the daemon. Accepted messages stay on the disk.

    \b
    Examples:
      claudemesh daemon down
      claudemesh daemon down --all
    """
    if is_all:
        # Imported here: most calls are for one mesh.
        from claudemesh.cli.daemon.fleet import down_all

        refuse_mesh_with_all(mesh)
        return down_all(as_json)
    client = LocalClient(mesh)
    try:
        stop(client)
    except DaemonNotRunning:
        answer = {"status": "not running", "mesh": client.slug}
        return output.print_answer(as_json, answer, f"no daemon runs for mesh {client.slug}")
    answer = {"status": "stopped", "mesh": client.slug}
    return output.print_answer(as_json, answer, f"stopped the daemon of mesh {client.slug}")
