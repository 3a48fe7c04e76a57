"""`claudemesh mcp`."""

from __future__ import annotations

import click

from claudemesh.cli import answers
from claudemesh.cli.options import mesh_option


@click.command()
@mesh_option
@answers.none("The answers are messages of the Model Context Protocol.")
def mcp(mesh: str | None) -> None:
    """Serve the tools of the mesh to an agent (MCP).

    A client such as Claude Code or Codex starts this command and speaks to it by standard input and output.
    The command registers the client as a session of this host, and ends with its input. It outlives a restart
    of the daemon.

    \b
    Examples:
      claudemesh integrate claude
      codex mcp add claudemesh -- claudemesh mcp
    """
    # Imported here: the help of the command needs no server.
    from claudemesh.cli.mcp.server import serve

    serve(mesh)
