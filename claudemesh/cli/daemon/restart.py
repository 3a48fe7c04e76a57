"""`claudemesh daemon restart`."""

from __future__ import annotations

from contextlib import suppress

import click
import orjson

from claudemesh.cli import answers
from claudemesh.cli.daemon.background import start_in_background
from claudemesh.cli.daemon.control import stop
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.errors import DaemonNotRunning
from claudemesh.client.local import LocalClient
from claudemesh.home.paths import daemon_paths
from claudemesh.runtime.exits import CONFIGURATION, ExitWith


@click.command()
@mesh_option
@json_option
@answers.action(status="string", mesh="string", pid="integer*")
def restart(mesh: str | None, as_json: bool) -> int:
    """Stop the daemon and start it again in the background.

    No accepted message is lost. The daemon starts with the options of its last start, also after a crash.

    \b
    Examples:
      claudemesh daemon restart
    """
    client = LocalClient(mesh)
    _refuse_ephemeral(client)
    with suppress(DaemonNotRunning):
        stop(client, to_restart=True)
    return start_in_background(client.slug, _was_with_broker(client.slug), None, as_json)


def _refuse_ephemeral(client: LocalClient) -> None:
    """Refuse to end an ephemeral member. Its keys and messages would go with its daemon."""
    # Imported here: only this command reads the daemon's files.
    from claudemesh.home.membership import load_membership

    path = client.path.with_name("membership.json")
    if path.exists() and load_membership(path).ephemeral:
        raise ExitWith(
            CONFIGURATION,
            "ephemeral_member",
            f"The member of mesh {client.slug} is ephemeral and ends with its daemon, so a restart cannot "
            "continue it. Stop it, and start it again with an invite. Nothing was changed.",
            next="claudemesh daemon down",
        )


def _was_with_broker(slug: str) -> bool:
    """Whether the last start had --with-broker."""
    # Imported here: only this command reads the daemon's files.
    from claudemesh.runtime.files import UnsafeFile, read_own

    try:
        options = orjson.loads(read_own(daemon_paths(slug).start_options))
    except (OSError, UnsafeFile, orjson.JSONDecodeError):
        return False
    return isinstance(options, dict) and options.get("with_broker") is True
