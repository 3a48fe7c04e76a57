"""`claudemesh daemon reload`."""

from __future__ import annotations

import click

from claudemesh.cli import output
from claudemesh.cli.daemon.control import reload_settings
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.local import LocalClient
from claudemesh.runtime.exits import CONFIGURATION, ExitWith


@click.command()
@mesh_option
@json_option
def reload(mesh: str | None, as_json: bool) -> int:
    """Take config.toml over as it is now. A wrong value is named, and changes nothing."""
    client = LocalClient(mesh)
    config = reload_settings(client)
    if config["error"]:
        raise ExitWith(CONFIGURATION, "reload_refused", config["error"])
    waiting = ", ".join(config["needs_restart"])
    if waiting and not as_json:
        output.note(f"These hold from the next start on: {waiting} (claudemesh daemon restart).")
    return output.tell(as_json, {"status": "reloaded", **config}, f"reloaded the settings of {client.slug}")
