"""`claudemesh daemon reload`."""

from __future__ import annotations

import click

from claudemesh.cli import answers, output
from claudemesh.cli.daemon.control import reload_settings
from claudemesh.cli.next_commands import command
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.local import LocalClient
from claudemesh.runtime.exits import CONFIGURATION, ExitWith


@click.command()
@mesh_option
@json_option
@answers.action("Config", status="string")
def reload(mesh: str | None, as_json: bool) -> int:
    """Apply config.toml without a restart.

    The link to the broker stays open. When a value is wrong, the error names it and no setting changes.

    \b
    Examples:
      claudemesh daemon reload
    """
    client = LocalClient(mesh)
    config = reload_settings(client)
    if config["error"]:
        raise ExitWith(CONFIGURATION, "reload_refused", config["error"])
    waiting = ", ".join(config["needs_restart"])
    if waiting and not as_json:
        output.note(f"These settings need a restart: {waiting}.")
    following = [command("daemon", "restart", mesh=mesh)] if waiting else []
    text = f"applied the settings of mesh {client.slug}"
    return output.print_answer(as_json, {"status": "reloaded", **config}, text, next=following)
