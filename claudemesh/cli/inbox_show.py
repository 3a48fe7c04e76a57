"""`claudemesh inbox show`."""

from __future__ import annotations

import click

from claudemesh.cli import answers, output
from claudemesh.cli.inbox_view import show_message
from claudemesh.cli.lookup import find_received
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.local import LocalClient
from claudemesh.runtime.exits import USAGE, ExitWith


@click.command()
@click.argument("id_or_seq", metavar="ID")
@mesh_option
@json_option
@answers.one("InboxItem")
def show(id_or_seq: str, mesh: str | None, as_json: bool) -> None:
    """Show a message in full, with the messages that it answers and that answer it.

    ID is the number that `claudemesh inbox` shows, or any id of the message. With --quiet only its text is
    printed. Showing a message does not acknowledge it.

    \b
    Examples:
      claudemesh inbox show 17
      claudemesh inbox show 17 -q >patch.diff
    """
    client = LocalClient(mesh)
    item = find_received(client, id_or_seq)
    if item is None:
        missing = f"The inbox holds no message {id_or_seq}."
        raise ExitWith(USAGE, "not_found", missing, next="claudemesh inbox")
    if as_json:
        output.print_json(item)
        return
    show_message(client, item)
