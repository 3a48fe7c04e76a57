"""`claudemesh paths`."""

from __future__ import annotations

import click

from claudemesh.cli import answers, output
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.meshes import choose_mesh
from claudemesh.home.paths import daemon_paths


@click.command()
@mesh_option
@json_option
@answers.others("The path of each file by its name.")
@answers.one(home="string", daemon="string")
def paths(mesh: str | None, as_json: bool) -> None:
    """Show the paths of all files.

    \b
    Examples:
      claudemesh paths
      claudemesh paths --json | jq -r .sock
    """
    slug = choose_mesh(mesh)
    known = daemon_paths(slug)
    databases = (known.outbox_db, known.inbox_db)
    files = (known.sock, known.http_port, known.local_token, known.config, *databases, known.log)
    found = {"home": known.home, "daemon": known.root} | {path.name: path for path in files}
    if as_json:
        output.print_json({name: str(path) for name, path in found.items()})
        return
    output.fields({name: f"{path}{'' if path.exists() else '  (missing)'}" for name, path in found.items()})
