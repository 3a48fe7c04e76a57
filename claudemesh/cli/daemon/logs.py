"""`claudemesh daemon logs`."""

from __future__ import annotations

import click

from claudemesh.cli import answers
from claudemesh.cli.log_view import LogFilter, log_options, show_log
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.meshes import choose_mesh
from claudemesh.home.paths import daemon_paths


@click.command()
@log_options
@mesh_option
@json_option
@answers.others("The fields of the event.")
@answers.lines(ts="time", level="string", event="string", logger="string*")
def logs(
    follow: bool,
    lines: int | None,
    since: str | None,
    level: str | None,
    mesh: str | None,
    as_json: bool,
) -> None:
    """Show the log of the daemon.

    Only a daemon in the background (`up -d`) writes this file. One in the foreground logs to its stderr.

    \b
    Examples:
      claudemesh daemon logs -f
      claudemesh daemon logs --since 1h --level warning
    """
    path = daemon_paths(choose_mesh(mesh)).log
    wanted = LogFilter(since, level)
    show_log(path, name="daemon", follow=follow, lines=lines, wanted=wanted, as_json=as_json)
