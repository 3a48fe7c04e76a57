"""`claudemesh daemon down`."""

from __future__ import annotations

import click

from claudemesh.cli import answers, output
from claudemesh.cli.daemon.control import stop
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.errors import DaemonNotRunning
from claudemesh.client.local import LocalClient


@click.command()
@mesh_option
@json_option
@answers.action(status="string", mesh="string")
def down(mesh: str | None, as_json: bool) -> int:
    """Stop the daemon. Accepted messages stay on the disk.

    \b
    Examples:
      claudemesh daemon down
    """
    client = LocalClient(mesh)
    try:
        stop(client)
    except DaemonNotRunning:
        answer = {"status": "not running", "mesh": client.slug}
        return output.print_answer(as_json, answer, f"no daemon runs for mesh {client.slug}")
    answer = {"status": "stopped", "mesh": client.slug}
    return output.print_answer(as_json, answer, f"stopped the daemon of mesh {client.slug}")
