"""`claudemesh daemon accept-host`."""

from __future__ import annotations

import click

from claudemesh.cli import answers, output
from claudemesh.cli.next_commands import command
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.local import LocalClient
from claudemesh.client.meshes import choose_mesh
from claudemesh.home.paths import daemon_paths


@click.command("accept-host")
@mesh_option
@json_option
@answers.action(mesh="string", fingerprint="string", source="string")
def accept_host(mesh: str | None, as_json: bool) -> int:
    """Let the files of this mesh belong to this host.

    For a directory that was moved here on purpose: from another machine, or from a backup. The keys stay, so
    the original must not run any more. If both hosts are to go on, use `claudemesh daemon remint` instead.

    \b
    Examples:
      claudemesh daemon accept-host
      claudemesh daemon up -d
    """
    # Imported here: most commands do not need them.
    from claudemesh.daemon.settings import load_settings
    from claudemesh.home.host_file import accept_host as keep_this_host

    slug = choose_mesh(mesh)
    paths = daemon_paths(slug)
    host = keep_this_host(paths.host_fingerprint, load_settings(paths.config).clone_id_override)
    answer = {"mesh": slug, "fingerprint": host.fingerprint, "source": host.source}
    text = f"the files of mesh {slug} belong to this host now"
    # One that runs under the policy `warn` shows the change of the host until its next start.
    words = ["restart"] if LocalClient(slug).is_running() else ["up", "-d"]
    return output.print_answer(as_json, answer, text, next=[command("daemon", *words, mesh=mesh)])
