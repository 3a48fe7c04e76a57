"""`claudemesh daemon reset`."""

from __future__ import annotations

from contextlib import suppress

import click

from claudemesh.cli import answers, output
from claudemesh.cli.confirming import confirm
from claudemesh.cli.daemon.control import stop
from claudemesh.cli.next_commands import command, needed
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.errors import DaemonNotRunning
from claudemesh.client.local import LocalClient
from claudemesh.client.meshes import choose_mesh
from claudemesh.client.wiping import received, undelivered, wipe_state
from claudemesh.home.paths import daemon_paths


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@mesh_option
@json_option
@answers.action(status="string", mesh="string")
def reset(yes: bool, mesh: str | None, as_json: bool) -> int:
    """Delete the local state, and stay a member of the mesh.

    The daemon stops. Deleted are outbox, inbox, files on their way, pinned keys, and copies of the broker's
    lists. Keys, membership, configuration and hooks stay. The broker is not asked. To leave the mesh:
    `claudemesh leave`.

    \b
    Examples:
      claudemesh daemon reset
      claudemesh daemon reset --yes && claudemesh daemon up -d
    """
    slug = choose_mesh(mesh)
    paths = daemon_paths(slug)
    confirm(
        f"Deleted are {received(paths)}, the outbox, files on their way, and the pinned keys of mesh {slug} "
        f"in {paths.root}.{undelivered(paths)} The next list of members is trusted as it is.",
        yes=yes,
    )
    with suppress(DaemonNotRunning):
        stop(LocalClient(slug))
    wipe_state(paths)
    following = [command("daemon", "up", "-d", mesh=needed(slug))]
    answer = {"status": "reset", "mesh": slug}
    return output.print_answer(as_json, answer, f"reset the state of mesh {slug}", next=following)
