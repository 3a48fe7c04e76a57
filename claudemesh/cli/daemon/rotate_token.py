"""`claudemesh daemon rotate-token`."""

from __future__ import annotations

import click

from claudemesh.cli import answers, output
from claudemesh.cli.daemon.control import reload_settings
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.local import LocalClient
from claudemesh.home.paths import daemon_paths


@click.command("rotate-token")
@mesh_option
@json_option
@answers.action(status="string", file="string")
def rotate_token(mesh: str | None, as_json: bool) -> int:
    """Replace the token of the local TCP port. The previous token works for 60 more seconds.

    \b
    Examples:
      claudemesh daemon rotate-token
    """
    # Imported here: only this command writes the daemon's files.
    from claudemesh.daemon.listeners import write_token

    client = LocalClient(mesh)
    paths = daemon_paths(client.slug)
    write_token(paths)
    if client.is_running():
        reload_settings(client)
    answer = {"status": "rotated", "file": str(paths.local_token)}
    return output.print_answer(as_json, answer, f"wrote a new token to {paths.local_token}")
