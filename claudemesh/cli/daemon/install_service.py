"""`claudemesh daemon install-service` and `uninstall-service`."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import click

from claudemesh.cli import answers
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.cli.service.options import install_options, manager_option
from claudemesh.client.meshes import choose_mesh
from claudemesh.home.paths import home


@click.command("install-service")
@install_options
@mesh_option
@json_option
@answers.action(
    status="string", unit="string", file="string", enabled="boolean", started="boolean", notes="array"
)
def install_service(mesh: str | None, as_json: bool, **options: Any) -> int:
    """Install the daemon of a mesh as a service, which starts with the host.

    On Linux it is the unit claudemesh@MESH.service of systemd, on macOS a property list of launchd. A unit of
    the system runs as the owner of CLAUDEMESH_HOME. Meshes of the same home share the unit's file.

    With --now a daemon that runs in the background is stopped, and the service is started in its place.

    \b
    Examples:
      claudemesh daemon install-service --now
      claudemesh daemon install-service --print
      sudo CLAUDEMESH_HOME=/var/lib/claudemesh \\
          claudemesh daemon install-service --system --mesh team
    """
    # Imported here: the help page needs none of it.
    from claudemesh.cli.service import install, launchd, units
    from claudemesh.cli.service.outcome import install_unit, print_unit
    from claudemesh.home.fleet import share_in

    wish = install.Wish(**options)
    slug = choose_mesh(mesh)
    if not wish.only_print:
        install.check_wish(wish)
    place = install.placement(home(), wish)
    if install.is_macos():
        unit = launchd.daemon_label(slug)
        text, file = launchd.daemon_plist(place, slug).decode(), f"{unit}.plist"
    else:
        text, file, unit = (
            units.daemon_unit(place, share_in(home()).memory_bytes),
            units.DAEMON_TEMPLATE,
            f"claudemesh@{slug}.service",
        )
    if wish.only_print:
        return print_unit(text, file, wish)
    if wish.now:
        _stop_background(slug)
    return install_unit(text, file, unit, wish, as_json=as_json)


@click.command("uninstall-service")
@manager_option
@mesh_option
@json_option
@answers.action(status="string", unit="string")
def uninstall_service(mesh: str | None, is_system: bool | None, as_json: bool) -> int:
    """Stop the service of a mesh's daemon and remove it. The mesh's files stay.

    \b
    Examples:
      claudemesh daemon uninstall-service
    """
    from claudemesh.cli.service import install, launchd, units
    from claudemesh.cli.service.outcome import remove_unit

    slug = choose_mesh(mesh)
    wish = install.Wish(is_system)
    if install.is_macos():
        unit = launchd.daemon_label(slug)
        file = f"{unit}.plist"
    else:
        file, unit = units.DAEMON_TEMPLATE, f"claudemesh@{slug}.service"
    return remove_unit(file, unit, wish, as_json=as_json)


def _stop_background(slug: str) -> None:
    """Stop the mesh's daemon, whichever way it was started: the service could not take its lock."""
    from claudemesh.cli.daemon.control import stop
    from claudemesh.client.errors import DaemonNotRunning
    from claudemesh.client.local import LocalClient

    with suppress(DaemonNotRunning):
        stop(LocalClient(slug))
