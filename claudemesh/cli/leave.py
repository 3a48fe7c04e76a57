"""`claudemesh leave` and `claudemesh daemon uninstall`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import click

from claudemesh.cli import answers, output
from claudemesh.cli.confirming import confirm
from claudemesh.cli.daemon.control import stop
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.errors import ClientError, DaemonNotRunning
from claudemesh.client.local import LocalClient
from claudemesh.client.meshes import choose_mesh
from claudemesh.home.paths import DaemonPaths, daemon_paths
from claudemesh.runtime.exits import ExitWith


def _leave_options(function: Callable[..., int]) -> Callable[..., int]:
    for option in (
        json_option,
        mesh_option,
        click.option("--force", is_flag=True, help="Leave as the last owner too."),
        click.option("--yes", is_flag=True, help="Do not ask."),
    ):
        function = option(function)
    return function


@click.command()
@_leave_options
@answers.action(status="string", mesh="string")
def leave(yes: bool, force: bool, mesh: str | None, as_json: bool) -> int:
    """Leave the mesh, and delete what this host keeps of it.

    The daemon stops. The broker has to be reachable: it releases the name, and refuses the key from then on.
    Messages that were sent before stay. The last owner of a mesh needs --force. The command may be repeated
    after an interruption. To delete the local state alone: `claudemesh daemon reset`.

    \b
    Examples:
      claudemesh leave
      claudemesh leave --mesh team --yes
    """
    return _leave_and_delete(yes, force, mesh, as_json)


@click.command()
@_leave_options
@answers.action(status="string", mesh="string")
def uninstall(yes: bool, force: bool, mesh: str | None, as_json: bool) -> int:
    """Leave the mesh, and delete what this host keeps of it.

    It is the same as `claudemesh leave`.

    \b
    Examples:
      claudemesh daemon uninstall
    """
    return _leave_and_delete(yes, force, mesh, as_json)


def _leave_and_delete(yes: bool, force: bool, mesh: str | None, as_json: bool) -> int:
    slug = choose_mesh(mesh)
    paths = daemon_paths(slug)
    confirm(_what(slug, paths), yes=yes)
    if not paths.ended.exists():
        try:
            _leave_at_broker(slug, force)
        except (ClientError, ExitWith):
            # The answer was lost, or the daemon found only now that its membership has ended.
            if not paths.ended.exists():
                raise
    with suppress(DaemonNotRunning):
        stop(LocalClient(slug))
    # Imported here: only what deletes needs it.
    from claudemesh.client.wiping import wipe_all

    wipe_all(paths)
    return output.print_answer(as_json, {"status": "left", "mesh": slug}, f"left mesh {slug}")


def _what(slug: str, paths: DaemonPaths) -> str:
    from claudemesh.client.wiping import received, undelivered

    return (
        f"This host leaves mesh {slug} for good. Deleted are its keys, {received(paths)}, "
        f"configuration and hooks in {paths.root}.{undelivered(paths)}"
    )


def _leave_at_broker(slug: str, force: bool) -> None:
    """Let the daemon leave. One that is started for that stops again, also when the broker is away."""
    client = LocalClient(slug)
    if client.is_running():
        client.post("/v1/leave", {"force": force})
        return
    # Imported here: only a start needs them.
    from claudemesh.cli.daemon.background import bound_daemon
    from claudemesh.cli.daemon.restarting import start_options

    with bound_daemon(slug, start_options(slug)) as pid:
        try:
            client.post("/v1/leave", {"force": force})
        finally:
            if pid is not None:
                with suppress(DaemonNotRunning):
                    stop(client)
