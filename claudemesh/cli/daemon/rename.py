"""`claudemesh daemon rename`."""

from __future__ import annotations

import click

from claudemesh.cli import answers, output
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.local import LocalClient


@click.command()
@click.argument("name")
@mesh_option
@json_option
@answers.action("MemberChanged")
def rename(name: str, mesh: str | None, as_json: bool) -> int:
    """Give this member another name.

    The name must be free in the mesh. The old one is free afterwards. Other members see the new name at once,
    and messages that are on their way still arrive.

    \b
    Examples:
      claudemesh daemon rename build-server
    """
    answer = LocalClient(mesh).post("/v1/rename", {"name": name})
    return output.print_answer(as_json, answer, f"this member is named {answer['name']} now")
