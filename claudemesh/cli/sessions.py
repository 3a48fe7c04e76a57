"""`claudemesh sessions`."""

from __future__ import annotations

import click

from claudemesh.cli import answers, output
from claudemesh.cli.command_group import CommandGroup
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.local import LocalClient

_COLUMNS = ("name", "client", "state", "reach", "cwd")


@click.group(cls=CommandGroup)
def sessions() -> None:
    """List the sessions of this host.

    A session is an agent, a person at a terminal, or a script that uses the daemon.

    `claudemesh send NAME/SESSION TEXT` sends a message to a session of a member.

    \b
    Examples:
      claudemesh sessions list
    """


@sessions.command("list")
@mesh_option
@json_option
@answers.items("SessionItem")
def list_sessions(mesh: str | None, as_json: bool) -> None:
    """List the live sessions of this host.

    REACH is how a message gets to the session: `push` wakes it, `turn` shows it at the next turn, `pull` when
    the session asks.

    \b
    Examples:
      claudemesh sessions list
      claudemesh sessions list --json | jq -r '.items[].name'
    """
    items = LocalClient(mesh).items("/v1/sessions")
    if as_json:
        output.print_items(items)
        return
    output.table(_COLUMNS, [[item[name] for name in _COLUMNS] for item in items])
