"""`claudemesh daemon archive-cleanup`."""

from __future__ import annotations

import click

from claudemesh.cli import answers, output
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.local import LocalClient


@click.command("archive-cleanup")
@mesh_option
@json_option
@answers.action("ArchiveCleaned")
def archive_cleanup(mesh: str | None, as_json: bool) -> int:
    """Delete the older keys whose grace period has passed. The daemon does it by itself every minute.

    \b
    Examples:
      claudemesh daemon archive-cleanup
    """
    answer = LocalClient(mesh).post("/v1/keys/archive/cleanup", {})
    return output.print_answer(as_json, answer, f"{answer['removed']} removed, {answer['kept']} kept")
