"""`claudemesh profile`."""

from __future__ import annotations

from typing import Any

import click

from claudemesh.cli import answers, output
from claudemesh.cli.next_commands import command
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.errors import WrongUse
from claudemesh.client.local import LocalClient


@click.command()
@click.option("--summary", metavar="TEXT", help="What this member does, at most 512 characters.")
@click.option("--status", metavar="TEXT", help="idle, working, away or another word, at most 64 characters.")
@click.option("--invisible/--visible", default=None, help="Be offline for all others, or not.")
@click.option("--name", hidden=True, help="Refused: another command changes the name.")
@mesh_option
@json_option
@answers.one("Profile")
def profile(
    summary: str | None,
    status: str | None,
    invisible: bool | None,
    name: str | None,
    mesh: str | None,
    as_json: bool,
) -> int:
    """Show or change the profile of this member.

    Without an option the profile is shown. Other members see a change within a second. An invisible member
    still sends and receives messages. `claudemesh daemon rename` changes the name.

    \b
    Examples:
      claudemesh profile
      claudemesh profile --status working --summary 'builds of main'
      claudemesh profile --invisible
    """
    if name is not None:
        renaming = command("daemon", "rename", name, mesh=mesh)
        raise WrongUse("not_a_profile", "The name is not a part of the profile.", next=renaming)
    client = LocalClient(mesh)
    visible = None if invisible is None else not invisible
    given: dict[str, Any] = {"summary": summary, "status": status, "visible": visible}
    given = {name: value for name, value in given.items() if value is not None}
    if given:
        client.post("/v1/profile", given)
    now = client.get("/v1/profile")
    if as_json:
        output.print_json(now)
        return 0
    output.fields(
        {
            "name": now["name"],
            "role": now["role"],
            "status": now["status"] or "",
            "summary": now["summary"] or "",
            "visible": "yes" if now["visible"] else "no",
        }
    )
    return 0
