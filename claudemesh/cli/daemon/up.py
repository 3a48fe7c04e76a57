"""`claudemesh daemon up`."""

from __future__ import annotations

import click

from claudemesh.cli.daemon.background import say_that_it_runs, start_in_background
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.current_mesh import from_environment
from claudemesh.client.local import LocalClient
from claudemesh.client.meshes import choose_mesh, meshes
from claudemesh.home.paths import daemon_paths

DEFAULT_MESH = "home"


@click.command()
@click.option("-d", "--detach", is_flag=True, help="Run in the background. Return when the daemon answers.")
@click.option(
    "--with-broker", is_flag=True, help="Run a broker inside the daemon, for a mesh on one machine."
)
@click.option("--name", metavar="NAME", help="Name of this host, when --with-broker creates the mesh.")
@mesh_option
@json_option
def up(detach: bool, with_broker: bool, name: str | None, mesh: str | None, as_json: bool) -> int:
    """Start the daemon.

    It runs in the foreground, for a service manager, unless -d is given. With --with-broker and without a
    mesh, the mesh `home` is created. When a daemon runs already, `claudemesh up` and `-d` succeed, and
    `claudemesh daemon up` in the foreground ends with 73.

    \b
    Examples:
      claudemesh daemon up -d
      claudemesh daemon up -d --with-broker
    """
    mesh = mesh or from_environment()
    slug = (mesh or DEFAULT_MESH) if with_broker and _is_new(mesh) else choose_mesh(mesh)
    if detach:
        return start_in_background(slug, with_broker, name, as_json)
    if _is_shortcut() and daemon_paths(slug).membership.exists() and LocalClient(slug).is_running():
        return say_that_it_runs(slug, as_json)
    # Imported here: only the process that becomes the daemon needs it.
    from claudemesh.cli.process import run_daemon

    return run_daemon(slug, with_broker=with_broker, name=name)


def _is_shortcut() -> bool:
    """Tell whether this is `claudemesh up`, typed by hand, and not `claudemesh daemon up` of a service."""
    parent = click.get_current_context().parent
    return parent is not None and parent.parent is None


def _is_new(mesh: str | None) -> bool:
    return not meshes() if mesh is None else mesh not in meshes()
